"""A monitor's answer about one checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from layerguard.runtime.types import json_ready


@dataclass(frozen=True, slots=True)
class TraitDrift:
    """How far one trait moved.

    Attributes:
        name: of the trait.
        drift: share of the base's mean state length; above 0 towards ``positive``.
        low: least drift among calibration checkpoints whose misalignment was within the limit.
        high: largest drift among them.
        towards: the pole that the sign of the drift names.
        moved: True unless ``low <= drift <= high``.
    """

    name: str
    drift: float
    low: float
    high: float
    towards: str
    moved: bool


@dataclass(frozen=True, slots=True)
class DriftReading:
    """What a monitor says about one checkpoint.

    Attributes:
        checkpoint: the model's name in the checkpoint's bundle.
        bundle_id: of that bundle.
        monitor_id: the first 16 hex digits of the monitor's manifest's sha256.
        predicted: share of answers that would be judged misaligned, 0 to 1.
        threshold: the limit tau on ``predicted``.
        step: training step of the checkpoint, where it was given.
        probability: of a step-aware monitor, that misalignment is above the limit; the alarm is
            then raised above 0.5 of it, whatever ``predicted`` is.
        alarm: True when the limit is exceeded, or a number is not finite.
        status: ``ok``, or ``invalid`` where a number is not finite.
        reason: one sentence for a person.
        traits: in the monitor's order.
    """

    checkpoint: str
    bundle_id: str
    monitor_id: str
    predicted: float
    threshold: float
    step: int | None
    probability: float | None
    alarm: bool
    status: Literal["ok", "invalid"]
    reason: str
    traits: tuple[TraitDrift, ...]

    def __post_init__(self) -> None:
        """Refuse a reading that would let an invalid checkpoint pass."""
        if self.status == "invalid" and not self.alarm:
            raise ValueError("status is invalid, so the alarm must be raised")

    def to_json(self) -> dict[str, Any]:
        """The reading as plain JSON types; non-finite numbers become None."""
        plain: dict[str, Any] = json_ready(asdict(self))
        return plain
