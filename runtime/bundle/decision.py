"""The decision over all detectors in a bundle: its cards, its arrays and their faults."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from layerguard.runtime.bundle.arrays import array_faults
from layerguard.runtime.types import Array

DECISION = "decision"
"""Prefix of its arrays in ``detectors.npz``; no detector may have this name."""


@dataclass(frozen=True, slots=True)
class DomainCard:
    """One domain: its number of clean texts and, if these suffice, its thresholds by detector."""

    n: int
    fpr_interval: tuple[float, ...]
    thresholds: dict[str, float]


@dataclass(frozen=True, slots=True)
class DecisionCard:
    """How the readings are combined into one decision.

    Attributes:
        policy: ``any`` or ``all`` of the enforced detectors must flag, or the name of the only one.
        detectors: columns of ``decision/scores``.
        shadow: those of them that are read but do not decide.
        target_fpr: share of clean traffic that the whole guard may flag.
        fpr_interval: 95 % interval of the realised share; [0, 1], no guarantee, if a detector uses
            a published threshold.
        n: number of clean texts that the decision was calibrated on.
        calibration_sha256: hash of those texts, in order.
        domains: kinds of traffic among them, by name.
    """

    policy: str
    detectors: tuple[str, ...]
    shadow: tuple[str, ...]
    target_fpr: float
    fpr_interval: tuple[float, ...]
    n: int
    calibration_sha256: str
    domains: dict[str, DomainCard]

    @property
    def enforced(self) -> tuple[str, ...]:
        """The detectors that decide."""
        return tuple(name for name in self.detectors if name not in self.shadow)

    @property
    def promised(self) -> bool:
        """Whether the false-positive rate of the whole guard was calibrated."""
        return self.fpr_interval != (0.0, 1.0)


def contradictions(card: DecisionCard, detectors: Collection[str]) -> list[str]:
    """Values of the card that contradict each other or the detectors of the manifest."""
    where = "manifest.json: decision"
    faults = []
    if sorted(card.detectors) != sorted(detectors):
        faults.append(
            f"{where}.detectors is {list(card.detectors)}; expected {sorted(detectors)}, as in "
            "manifest.json: detectors; calibrate again"
        )
    strange = sorted(set(card.shadow) - set(card.detectors))
    if strange or not card.enforced:
        faults.append(
            f"{where}.shadow is {list(card.shadow)}; expected some of {list(card.detectors)}, but "
            "not all: at least one must decide"
        )
    if card.policy not in ("any", "all") and card.enforced != (card.policy,):
        faults.append(
            f"{where}.policy is {card.policy!r}; expected 'any', 'all', or the name of the one "
            f"detector that decides, of {list(card.enforced)}"
        )
    intervals = {"": card.fpr_interval, **{n: d.fpr_interval for n, d in card.domains.items()}}
    for name, interval in intervals.items():
        low, high = interval if len(interval) == 2 else (1.0, 0.0)
        if not (0 < card.target_fpr < 1 and 0 <= low <= high <= 1):
            faults.append(
                f"{where}{'.domains.' + name if name else ''}: target_fpr {card.target_fpr} and "
                f"fpr_interval {list(interval)}; expected a share between 0 and 1 and its interval"
            )
    for name, domain in card.domains.items():
        if domain.thresholds and sorted(domain.thresholds) != sorted(card.detectors):
            faults.append(
                f"{where}.domains.{name}.thresholds are of {sorted(domain.thresholds)}; expected "
                f"none, or one for each of {list(card.detectors)}"
            )
    return faults


def decision_faults(card: DecisionCard | None, arrays: Mapping[str, Array]) -> list[str]:
    """Every array of the decision that is missing, unknown, or contradicts its card."""
    if card is None:
        return [f"{DECISION}/{name}: the manifest has no decision" for name in arrays]
    expected = {
        "scores": ("float64", (card.n, len(card.detectors))),
        "domains": ("int32", (card.n,)),
        "texts": ("int64", (card.n,)),
        "seen": ("int64", (None,)),
    }
    faults = array_faults(DECISION, arrays, expected)
    if faults:
        return faults
    domains = arrays["domains"]
    if card.n and not (domains.min() >= -1 and domains.max() < len(card.domains)):
        faults.append(
            f"{DECISION}/domains holds {domains.min()} to {domains.max()}; expected -1 (none) to "
            f"{len(card.domains) - 1}, an index into the names of the domains in order"
        )
    return faults
