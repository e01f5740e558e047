"""What a bundle promises, and how it decides."""

from collections.abc import Mapping
from dataclasses import dataclass

from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.guard import Guard


@dataclass(frozen=True, slots=True)
class GuardRule:
    """The decision of a bundle.

    Attributes:
        model: id of the model.
        policy: ``any`` or ``all`` of the deciding detectors, or the name of the only one.
        deciding: names of the detectors that decide.
        shadow: names of the other detectors, without those that never decide.
        thresholds: of all traffic, by detector, without those that never decide.
        target_fpr: share of clean traffic that the guard may flag; None if it promises no rate.
        fpr_interval: 95 % interval of the share that the calibration supports, for traffic like
            the calibration rows; None if it promises no rate.
        calibration_rows: number of clean texts that the decision rests on; 0 if it promises none.
    """

    model: str
    policy: str
    deciding: tuple[str, ...]
    shadow: tuple[str, ...]
    thresholds: Mapping[str, float]
    target_fpr: float | None
    fpr_interval: tuple[float, float] | None
    calibration_rows: int


def guard_rule(guard: Guard) -> GuardRule:
    """The decision of a loaded guard."""
    manifest, decision = guard.bundle.manifest, guard.decision
    card = manifest.decision
    promised = card if card is not None and card.promised else None
    return GuardRule(
        model=manifest.model.id,
        policy=decision.policy,
        deciding=tuple(decision.enforced),
        shadow=tuple(name for name in decision.shadow if REGISTRY[name].decides),
        thresholds={
            name: threshold
            for name, threshold in decision.limits[None].thresholds.items()
            if REGISTRY[name].decides
        },
        target_fpr=promised.target_fpr if promised else None,
        fpr_interval=decision.promised[None] if promised else None,
        calibration_rows=promised.n if promised else 0,
    )
