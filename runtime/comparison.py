"""How far two guards agree on the same texts: their scores, and what they decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Flip:
    """A text that one guard flags and the other does not: ``a``, or ``b``, alone."""

    id: str
    flagged_by: Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What both decide at their own operating points.

    Attributes:
        rows: texts.
        flagged_a: share that the first flags.
        flagged_b: share that the second flags.
        flips: the texts on which they differ, in the rows' order.
    """

    rows: int
    flagged_a: float
    flagged_b: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """How far one detector's scores lie apart.

    Attributes:
        compared: texts whose scores are finite in both.
        largest_difference: |b - a|; None where no text is compared, as all that follow.
        median_difference: of the same.
        rank_correlation: Spearman's, in [-1, 1]: whether both put the texts in one order; None
            where one of them gives all texts the same score.
    """

    compared: int
    largest_difference: float | None
    median_difference: float | None
    rank_correlation: float | None


def decisions(ids: Sequence[str], a: Sequence[bool], b: Sequence[bool]) -> Decisions:
    """Compare what two guards, or one detector of both, flag; at least one text, in one order."""
    flips = [
        Flip(name, "a" if first else "b")
        for name, first, second in zip(ids, a, b, strict=True)
        if first != second
    ]
    return Decisions(len(ids), sum(a) / len(ids), sum(b) / len(ids), tuple(flips))


def scores(a: Sequence[float], b: Sequence[float]) -> Scores:
    """Compare one detector's scores of the same texts, in one order."""
    both = np.array([a, b], np.float64)
    first, second = both[:, np.isfinite(both).all(axis=0)]
    if not len(first):
        return Scores(0, None, None, None)
    differences = np.abs(second - first)
    return Scores(
        len(first),
        float(differences.max()),
        float(np.median(differences)),
        _correlation(_ranks(first), _ranks(second)),
    )


def _ranks(values: Array) -> Array:
    """Places in ascending order from 0, float64 [n]; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(sizes) - (sizes + 1) / 2)[group]
    return ranks


def _correlation(a: Array, b: Array) -> float | None:
    """Pearson's; None where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1, 1)) if size > 0 else None
