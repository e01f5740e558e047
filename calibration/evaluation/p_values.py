"""Are the guard's p-values calibrated? Their distribution on clean rows against the uniform."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from layerguard.calibration.evaluation.rates import CONFIDENCE
from layerguard.runtime.types import Array

_NOMINAL = np.concatenate([np.arange(0, 100) / 1000, np.arange(20, 201) / 200])
"""Targets: in steps of 0.1 % up to 10 %, then of 0.5 %."""


@dataclass(frozen=True, slots=True)
class PValueCheck:
    """The share of clean rows that the guard would flag at each target.

    Attributes:
        nominal: the targets, float64 [k], ascending from 0 to 1.
        share: share of clean rows with a p-value up to the target, float64 [k].
        low: lower edge of its 95 % interval, at each target alone, float64 [k].
        high: upper edge.
        largest_excess: the most by which the share exceeds the target.
        at: the target where it does.
    """

    nominal: Array
    share: Array
    low: Array
    high: Array
    largest_excess: float
    at: float


def check_p_values(p_values: Sequence[float] | Array) -> PValueCheck:
    """Compare the p-values of n clean rows, at least one, with the uniform distribution.

    The p-values of rows that are like the calibration rows are uniform, or larger: the share is at
    most the target. The interval is that of Clopper and Pearson, as for ``rates.rate``.
    """
    ordered = np.sort(np.asarray(p_values, np.float64))
    n = len(ordered)
    counts = np.searchsorted(ordered, _NOMINAL, side="right")
    tail = (1 - CONFIDENCE) / 2
    low = np.where(counts > 0, beta.ppf(tail, np.maximum(counts, 1), n - counts + 1), 0.0)
    high = np.where(counts < n, beta.ppf(1 - tail, counts + 1, np.maximum(n - counts, 1)), 1.0)
    excess = counts / n - _NOMINAL
    worst = int(excess.argmax())
    return PValueCheck(
        _NOMINAL, counts / n, low, high, float(excess[worst]), float(_NOMINAL[worst])
    )
