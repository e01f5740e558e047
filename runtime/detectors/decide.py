"""From a score to a reading: threshold, conformal p-value, and failing closed."""

import math
from bisect import bisect_left

from layerguard.runtime.types import Evidence, Reading


def decide(
    detector: str,
    score: float,
    threshold: float,
    clean_scores: list[float],
    evidence: tuple[Evidence, ...],
) -> Reading:
    """The reading of one score.

    Flags unless ``score <= threshold``, so that NaN flags. The p-value is the conformal one,
    (1 + #{clean >= score}) / (n + 1) (Vovk et al., "Algorithmic Learning in a Random World",
    section 2.2), and 1 / (n + 1), the smallest possible, for a score that is not finite.

    Args:
        detector: name of the detector.
        score: unitless, larger is worse.
        threshold: the calibrated limit.
        clean_scores: sorted ascending: scores of clean calibration texts.
        evidence: what moved the score.
    """
    valid = math.isfinite(score)
    n = len(clean_scores)
    at_least = n - bisect_left(clean_scores, score) if valid else 0
    return Reading(
        detector=detector,
        score=score,
        threshold=threshold,
        p_value=(1 + at_least) / (n + 1),
        flagged=not (valid and score <= threshold),
        evidence=evidence,
        status="ok" if valid else "invalid",
    )
