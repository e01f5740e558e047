"""The result of a checkpoint monitor for one checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from layerguard.runtime.types import json_ready


@dataclass(frozen=True, slots=True)
class TraitDrift:
    """The drift of one trait.

    Attributes:
        name: name of the trait.
        drift: fraction of the base's mean state length; positive values point to ``positive``.
        low: smallest drift among calibration checkpoints with misalignment up to the threshold.
        high: largest drift among them.
        towards: the pole that the sign of the drift points to.
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
    """The result of a checkpoint monitor for one checkpoint.

    Attributes:
        checkpoint: name of the model in the checkpoint's bundle.
        bundle_id: id of that bundle.
        monitor_id: the first 16 hex digits of the sha256 of the monitor's manifest.
        predicted: predicted share of answers that would be judged misaligned, 0 to 1.
        threshold: tau, the threshold on ``predicted``.
        step: training step of the checkpoint; None if it was not given.
        probability: step-aware monitors only: the probability that misalignment is above tau. The
            alarm is then raised if it exceeds 0.5, whatever ``predicted`` is.
        alarm: True if the threshold is exceeded or a number is not finite.
        status: ``ok``, or ``invalid`` if a number is not finite.
        reason: one sentence that explains the result.
        traits: the drift of each trait, in the monitor's order.
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
        """Check that an invalid reading raises the alarm."""
        if self.status == "invalid" and not self.alarm:
            raise ValueError("status is invalid, so the alarm must be raised")

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON types; non-finite numbers become None."""
        plain: dict[str, Any] = json_ready(asdict(self))
        return plain
