"""Split-conformal thresholds, and the false-positive rate that n clean scores support.

Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", section 2.2. The distribution
of the realised rate: Vovk, "Conditional validity of inductive conformal predictors", section 3.
"""

import math
from fractions import Fraction

import numpy as np
from scipy.stats import beta

from layerguard.runtime.decision.blocks import allowed
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

CONFIDENCE = 0.95
"""Confidence level of the interval that is stored with every threshold."""


def threshold(clean_scores: Array, target_fpr: float) -> float:
    """The k-th smallest clean score, k = ceil((n + 1)(1 - target_fpr)).

    A new score that is exchangeable with the clean scores exceeds the threshold with probability at
    most ``target_fpr``, for any distribution.

    Args:
        clean_scores: float64 [n], any order.
        target_fpr: share of clean traffic that may be flagged, in (0, 1).

    Raises:
        CalibrationError: n clean scores do not suffice for the target.
    """
    k = rank(len(clean_scores), target_fpr)
    return float(np.partition(clean_scores, k - 1)[k - 1])


def fpr_interval(n: int, target_fpr: float) -> Array:
    """95 % confidence interval of the realised false-positive rate, float64 [2].

    Over draws of n clean scores the rate follows Beta(n + 1 - k, k). This is exact for continuous
    scores with parameters that were fitted on other data.
    """
    return blocks_interval(n, n + 1 - rank(n, target_fpr))


def blocks_interval(n: int, flagged: int) -> Array:
    """The interval if ``flagged`` of the n + 1 blocks between clean scores are flagged."""
    tail = (1 - CONFIDENCE) / 2
    bounds: Array = beta.ppf([tail, 1 - tail], flagged, n + 1 - flagged)
    return bounds


def rank(n: int, target_fpr: float, detectors: int = 1) -> int:
    """The rank of the threshold among n ascending clean scores, starting at 1.

    Args:
        n: number of clean scores.
        target_fpr: share of clean traffic that may be flagged, in (0, 1).
        detectors: number of detectors that share the target; each needs a block of its own.

    Raises:
        InputError: the target is not between 0 and 1.
        CalibrationError: n is too small for the target.
    """
    exact(target_fpr)
    flagged = allowed(n, target_fpr)
    if flagged < detectors:
        shared = f" of {detectors} detectors" if detectors > 1 else ""
        least = least_rows(target_fpr, detectors)
        raise CalibrationError(
            f"target {100 * target_fpr:g} %{shared} needs at least {least} clean prompts, found "
            f"{n}; bring more, or raise the target"
        )
    return n + 1 - flagged


def least_rows(target_fpr: float, detectors: int = 1) -> int:
    """The smallest number of clean scores that suffices for ``target_fpr``."""
    return math.ceil(detectors / exact(target_fpr)) - 1


def exact(target_fpr: float) -> Fraction:
    """The exact value of the decimal that the user wrote: 100 times 0.29 is 29, not 28.999...

    Raises:
        InputError: the target is not between 0 and 1.
    """
    if not 0 < target_fpr < 1:
        raise InputError(f"target_fpr: found {target_fpr}; expected a share between 0 and 1")
    return Fraction(str(target_fpr))
