"""Scores of LCF from parameters that never saw their row.

The published leave-one-out keeps the held-out row in mu, sigma, m and s. Here all of them are
refitted without the row's fold. Folds change only sums, so the lengths of every row under every
refit are two matrix products a layer:

    S[i, k]^2 = sum_d ((x_id - mu_kd) / sigma_kd)^2
              = (x*x) w_k - 2 x (w_k mu_k) + sum_d w_kd mu_kd^2,   w_k = 1 / sigma_k^2.
"""

from collections.abc import Callable

import numpy as np

from layerguard.calibration.lcf_statistics import aggregate, differences
from layerguard.runtime.types import Array

_BYTES_AT_ONCE = 256 << 20
"""Of the lengths [n, folds, L] that are held together."""

Floor = Callable[[Array], Array]
"""Standard deviations [folds, hidden] with a lower bound applied."""


def held_out_scores(states: Array, folds: Array, floor: Floor) -> Array:
    """The score of every row under parameters fitted without its fold, float64 [n].

    Args:
        states: float32 [n, L + 1, hidden].
        folds: int64 [n], 0..k-1, none empty; all rows of a group in one fold.
        floor: keeps standard deviations away from zero.
    """
    n, depth = len(states), states.shape[1] - 1
    count = int(folds.max()) + 1
    step = max(1, _BYTES_AT_ONCE // (8 * n * depth))
    scores = np.empty(n)
    for first in range(0, count, step):
        chosen = np.arange(first, min(first + step, count))
        s = np.stack(
            [_lengths_without(x, folds, chosen, floor) for x in differences(states)], axis=-1
        )
        for column, fold in enumerate(chosen):
            held = folds == fold
            scores[held] = aggregate(s[~held, column]).score(s[held, column])
    return scores


def _lengths_without(x: Array, folds: Array, chosen: Array, floor: Floor) -> Array:
    """S of every row under the statistics without each chosen fold, float64 [n, chosen].

    ``x`` is centred first: with means near zero the expanded square loses no digits.
    """
    x -= x.mean(axis=0)
    squares = x * x
    rest = [folds != fold for fold in chosen]
    size = np.array([np.count_nonzero(rows) for rows in rest])[:, None]
    total, total_squares = x.sum(axis=0), squares.sum(axis=0)
    mean = np.stack([total - x[~rows].sum(axis=0) for rows in rest]) / size
    power = np.stack([total_squares - squares[~rows].sum(axis=0) for rows in rest]) / size
    sigma = floor(np.sqrt(np.maximum(power - mean * mean, 0.0)))
    weight = 1.0 / (sigma * sigma)
    weighted = weight * mean
    square = squares @ weight.T - 2.0 * (x @ weighted.T) + (weighted * mean).sum(axis=1)
    lengths: Array = np.sqrt(np.maximum(square, 0.0))
    return lengths
