"""The threshold of one detector with the scores it was set on, as the bundle stores it."""

from dataclasses import dataclass

import numpy as np

from layerguard.calibration.thresholds import conformal
from layerguard.runtime.types import Array

NOTHING_PROMISED = (0.0, 1.0)
"""The interval of an unknown false-positive rate."""


@dataclass(frozen=True, slots=True, eq=False)
class Threshold:
    """A detector's threshold.

    Attributes:
        value: scores above it are flagged.
        clean_scores: float64 [n], ascending, the scores of clean texts for p-values; may be empty.
        target_fpr: share of clean texts that may be flagged, in (0, 1).
        fpr_interval: 95 % confidence interval of the realised share, lower and upper bound.
    """

    value: float
    clean_scores: Array
    target_fpr: float
    fpr_interval: tuple[float, float]

    def arrays(self) -> dict[str, Array]:
        """The arrays of ``detectors.npz``: float64 [], [n], [] and [2]."""
        return {
            "threshold": np.array(float(self.value)),
            "clean_scores": self.clean_scores,
            "target_fpr": np.array(float(self.target_fpr)),
            "fpr_interval": np.array(self.fpr_interval, np.float64),
        }


def conformal_threshold(clean_scores: Array, target_fpr: float) -> Threshold:
    """The split-conformal threshold for a target.

    Args:
        clean_scores: float64 [n], ascending, held-out scores.
        target_fpr: share of clean texts that may be flagged, in (0, 1).

    Raises:
        CalibrationError: n clean scores do not suffice for the target.
    """
    low, high = conformal.fpr_interval(len(clean_scores), target_fpr).tolist()
    value = conformal.threshold(clean_scores, target_fpr)
    return Threshold(value, clean_scores, target_fpr, (low, high))


def published_threshold(
    value: float, clean_scores: Array | None = None, target_fpr: float = 1.0
) -> Threshold:
    """A published threshold, which promises no false-positive rate.

    Args:
        value: the threshold.
        clean_scores: float64 [n], ascending; empty by default.
        target_fpr: target that is recorded with the threshold.
    """
    scores = np.empty(0) if clean_scores is None else clean_scores
    return Threshold(value, scores, target_fpr, NOTHING_PROMISED)
