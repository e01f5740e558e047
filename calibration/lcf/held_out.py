"""Held-out scores of LCF.

The published leave-one-out keeps the held-out row in mu, sigma, m and s. Here all of them are
refitted without the row's fold. A first pass over the states computes the moments of every fold,
and from these the moments of all other rows. A second pass computes the lengths S of every row
under every refit, as two matrix products a layer:

    S[i, k]^2 = sum_d ((x_id - mu_kd) / sigma_kd)^2
              = (x*x) w_k - 2 x (w_k mu_k) + sum_d w_kd mu_kd^2,   w_k = 1 / sigma_k^2.

If the folds exceed ``_BYTES_AT_ONCE``, for example with one row a fold, both passes are repeated
for some folds at a time. Time then grows with the square of the number of rows; memory does not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.lcf.statistics import Standard, aggregate, lengths, moments
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.calibration.states.moments import Moments
from layerguard.runtime.types import Array

_BYTES_AT_ONCE = 256 << 20
"""Memory for the lengths [n, folds, L], and for the refits of the folds, in one pass."""

Floor = Callable[[Array], Array]
"""Standard deviations [folds, hidden] with a lower bound applied."""


@dataclass(frozen=True, slots=True)
class FoldMoments:
    """Moments of the layer differences, from one pass over the states.

    Attributes:
        folds: int64 [n], the fold of each row.
        total: by layer, moments [hidden] of all rows.
        first: by layer, moments [folds, hidden] of the first folds.
    """

    folds: Array
    total: tuple[Moments, ...]
    first: tuple[Moments, ...]

    @classmethod
    def read(cls, states: States, folds: Array) -> "FoldMoments":
        """Compute the moments in one pass, or in two if there are too many folds for one.

        Args:
            states: states of all rows.
            folds: int64 [n], 0..k-1, none empty; all rows of a group in one fold.
        """
        count, step = int(folds.max()) + 1, _folds_at_once(states)
        first = moments(states, folds, min(step, count))
        if count <= step:
            total = tuple(layer.total() for layer in first)
        else:
            total = tuple(layer[0] for layer in moments(states, np.zeros_like(folds), 1))
        return cls(folds, total, first)

    def without(self, states: States) -> Iterator[tuple[Array, list[Moments]]]:
        """Yield some folds at a time, with the moments [folds, hidden] without each, by layer."""
        count, step = int(self.folds.max()) + 1, len(self.first[0].count)
        for start in range(0, count, step):
            chosen = np.arange(start, min(start + step, count))
            parts = self.first
            if start:
                parts = moments(states, self.folds - start, len(chosen))
            yield (
                chosen,
                [total.without(part) for total, part in zip(self.total, parts, strict=True)],
            )


def held_out_scores(states: Array | States, folds: Array, floor: Floor) -> Array:
    """The score of every row with parameters fitted without its fold, float64 [n].

    Args:
        states: float32 [n, L + 1, hidden].
        folds: int64 [n], 0..k-1, none empty; all rows of a group in one fold.
        floor: applies a lower bound to standard deviations.
    """
    states = as_states(states)
    return scores_and_lengths(states, FoldMoments.read(states, folds), floor)[0]


def scores_and_lengths(
    states: States, fold_moments: FoldMoments, floor: Floor, also: Sequence[Standard] = ()
) -> tuple[Array, list[Array]]:
    """Held-out scores, float64 [n], and in the same pass S of all rows under each of ``also``.

    S is float64 [n, ways, L] for each standard.
    """
    scores = np.empty(states.shape[0])
    others: list[Array] = []
    for chosen, rest in fold_moments.without(states):
        refits = _Refits([layer.mean for layer in fold_moments.total], rest, floor)
        s, *more = lengths(states, [refits, *also])
        others, also = others or more, ()
        for column, fold in enumerate(chosen):
            held = fold_moments.folds == fold
            scores[held] = aggregate(s[~held, column]).score(s[held, column])
    return scores, others


def _folds_at_once(states: States) -> int:
    rows, layers, width = states.shape
    depth = layers - 1
    return max(1, _BYTES_AT_ONCE // (8 * depth * max(rows, 4 * width)))


class _Refits:
    """The ``Standard`` whose statistics leave out one of some folds each.

    The mean of all rows is subtracted first. With means near zero, the expanded square does not
    lose digits.
    """

    def __init__(self, centre: list[Array], rest: list[Moments], floor: Floor) -> None:
        self.ways = len(rest[0].count)
        self._layers = [_refit(*layer, floor) for layer in zip(centre, rest, strict=True)]

    def lengths(self, layer: int, difference: Array) -> Array:
        """S of one layer, float64 [rows, folds]."""
        centre, weight, weighted, constant = self._layers[layer]
        x = difference - centre
        square = (x * x) @ weight.T - 2.0 * (x @ weighted.T) + constant
        length: Array = np.sqrt(np.maximum(square, 0.0))
        return length


def _refit(centre: Array, rest: Moments, floor: Floor) -> tuple[Array, Array, Array, Array]:
    """Centre [hidden], w and w mu [folds, hidden], and sum_d w mu^2 [folds], for one layer."""
    sigma, mean = floor(rest.deviation), rest.mean - centre
    weight = 1.0 / (sigma * sigma)
    weighted = weight * mean
    return centre, weight, weighted, (weighted * mean).sum(axis=1)
