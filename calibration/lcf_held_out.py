"""Scores of LCF from parameters that never saw their row.

The published leave-one-out keeps the held-out row in mu, sigma, m and s. Here all of them are
refitted without the row's fold. A first pass over the states gives the moments of every fold, from
which those of all other rows follow; a second one gives the lengths of every row under every refit,
as two matrix products a layer:

    S[i, k]^2 = sum_d ((x_id - mu_kd) / sigma_kd)^2
              = (x*x) w_k - 2 x (w_k mu_k) + sum_d w_kd mu_kd^2,   w_k = 1 / sigma_k^2.

Where there are more folds than ``_BYTES_AT_ONCE`` holds, as where every row is one, both passes are
made for some folds at a time: time then grows with the square of the rows, memory does not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.lcf_statistics import Standard, aggregate, lengths, moments
from layerguard.calibration.moments import Moments
from layerguard.calibration.states import States, as_states
from layerguard.runtime.types import Array

_BYTES_AT_ONCE = 256 << 20
"""Of the lengths [n, folds, L] that are held together, and of the folds' refits."""

Floor = Callable[[Array], Array]
"""Standard deviations [folds, hidden] with a lower bound applied."""


@dataclass(frozen=True, slots=True)
class FoldMoments:
    """What one pass over the states says of their differences.

    Attributes:
        folds: int64 [n], the fold of each row.
        total: by layer, of all rows, [hidden].
        first: by layer, of the first folds, [folds, hidden].
    """

    folds: Array
    total: tuple[Moments, ...]
    first: tuple[Moments, ...]

    @classmethod
    def read(cls, states: States, folds: Array) -> "FoldMoments":
        """One pass, or two where the folds are too many for one.

        Args:
            states: of all rows.
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
        """Some folds at a time, and by layer the moments [folds, hidden] without each of them."""
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
    """The score of every row under parameters fitted without its fold, float64 [n].

    Args:
        states: float32 [n, L + 1, hidden].
        folds: int64 [n], 0..k-1, none empty; all rows of a group in one fold.
        floor: keeps standard deviations away from zero.
    """
    states = as_states(states)
    return scores_and_lengths(states, FoldMoments.read(states, folds), floor)[0]


def scores_and_lengths(
    states: States, found: FoldMoments, floor: Floor, also: Sequence[Standard] = ()
) -> tuple[Array, list[Array]]:
    """Held-out scores, float64 [n], and from the same pass S of all rows under other standards.

    S is float64 [n, ways, L] for each of ``also``.
    """
    scores = np.empty(states.shape[0])
    others: list[Array] = []
    for chosen, rest in found.without(states):
        refits = _Refits([layer.mean for layer in found.total], rest, floor)
        s, *more = lengths(states, [refits, *also])
        others, also = others or more, ()
        for column, fold in enumerate(chosen):
            held = found.folds == fold
            scores[held] = aggregate(s[~held, column]).score(s[held, column])
    return scores, others


def _folds_at_once(states: States) -> int:
    rows, layers, width = states.shape
    depth = layers - 1
    return max(1, _BYTES_AT_ONCE // (8 * depth * max(rows, 4 * width)))


class _Refits:
    """The statistics without each of some folds; a ``Standard``.

    Differences are centred by the mean of all rows first: with means near zero the expanded square
    loses no digits.
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
    """Centre [hidden], w and w mu [folds, hidden], and sum_d w mu^2 [folds] of one layer."""
    sigma, mean = floor(rest.deviation), rest.mean - centre
    weight = 1.0 / (sigma * sigma)
    weighted = weight * mean
    return centre, weight, weighted, (weighted * mean).sum(axis=1)
