"""Compares the scores and decisions of two guards on the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Flip:
    """A text that only one of the guards flags: ``a`` or ``b``."""

    id: str
    flagged_by: Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class DecisionComparison:
    """Comparison of the flags of two guards, each at its own threshold.

    Attributes:
        rows: number of texts.
        flagged_a: share of texts that the first guard flags.
        flagged_b: share of texts that the second guard flags.
        flips: the texts that only one guard flags, in the order of the rows.
    """

    rows: int
    flagged_a: float
    flagged_b: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Comparison of one detector's scores in two guards.

    Attributes:
        compared: number of texts whose scores are finite in both guards. If it is 0, all other
            attributes are None.
        largest_difference: largest |b - a|.
        median_difference: median |b - a|.
        rank_correlation: Spearman's rank correlation, in [-1, 1]; None if one guard gives all
            texts the same score.
    """

    compared: int
    largest_difference: float | None
    median_difference: float | None
    rank_correlation: float | None


def compare_decisions(
    ids: Sequence[str], a: Sequence[bool], b: Sequence[bool]
) -> DecisionComparison:
    """Compare the flags of two guards, or of one detector in both, on the same texts.

    Args:
        ids: ids of the texts, at least one.
        a: flags of the first guard, in the order of ``ids``.
        b: flags of the second guard, in the order of ``ids``.
    """
    flips = [
        Flip(name, "a" if first else "b")
        for name, first, second in zip(ids, a, b, strict=True)
        if first != second
    ]
    return DecisionComparison(len(ids), sum(a) / len(ids), sum(b) / len(ids), tuple(flips))


def compare_scores(a: Sequence[float], b: Sequence[float]) -> ScoreComparison:
    """Compare one detector's scores in two guards; both sequences have the same texts in order."""
    both = np.array([a, b], np.float64)
    first, second = both[:, np.isfinite(both).all(axis=0)]
    if not len(first):
        return ScoreComparison(0, None, None, None)
    differences = np.abs(second - first)
    return ScoreComparison(
        len(first),
        float(differences.max()),
        float(np.median(differences)),
        _correlation(_ranks(first), _ranks(second)),
    )


def _ranks(values: Array) -> Array:
    """Ranks from 0 in ascending order, float64 [n]; equal values get their mean rank."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(sizes) - (sizes + 1) / 2)[group]
    return ranks


def _correlation(a: Array, b: Array) -> float | None:
    """Pearson correlation; None if one of the arrays is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1, 1)) if size > 0 else None
