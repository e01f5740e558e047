"""Makes a reading from a score: threshold, conformal p-value, and failing closed."""

from collections.abc import Sequence

import numpy as np

from layerguard.runtime.kernels import judged
from layerguard.runtime.types import Array, Evidence, Reading


def decide(
    detector: str,
    score: float,
    threshold: float,
    clean_scores: Array | Sequence[float],
    evidence: tuple[Evidence, ...],
) -> Reading:
    """The reading of one score; see ``layerguard.runtime.kernels.judged``.

    Args:
        detector: name of the detector.
        score: unitless, larger is worse.
        threshold: the calibrated threshold.
        clean_scores: scores of clean calibration texts, sorted ascending.
        evidence: contributions to the score.
    """
    clean = np.ascontiguousarray(clean_scores, np.float64)
    valid, flagged, p_value = judged(score, threshold, clean)
    return Reading(
        detector=detector,
        score=score,
        threshold=threshold,
        p_value=p_value,
        flagged=flagged,
        evidence=evidence,
        status="ok" if valid else "invalid",
    )
