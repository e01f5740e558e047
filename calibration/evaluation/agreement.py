"""Do methods agree? Pairs of detectors on the same rows, and one guard against another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import cohen_kappa_score

from layerguard.calibration.evaluation.scored_rows import ScoredRow, flags_of, scores_of
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Pair:
    """Two detectors on the same rows.

    Attributes:
        first: name of a detector.
        second: name of another one.
        both: number of rows that both flag at their thresholds.
        only_first: number of rows that only the first flags.
        only_second: number of rows that only the second flags.
        neither: number of rows that neither flags.
        kappa: Cohen's kappa of the flags; None if it is not defined.
        rank_correlation: Spearman's, of the scores; None if one of them is constant.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    kappa: float | None
    rank_correlation: float | None


@dataclass(frozen=True, slots=True)
class Flips:
    """The rows of one label that one guard flags and another does not.

    Attributes:
        n: number of rows that both guards could read.
        only_first: rows that only the first guard flags, in order, as the first guard read them.
        only_second: rows that only the second guard flags, in order, as the first guard read them.
        p_value: of the exact test of McNemar that both flag the same share; 1 without flips.
    """

    n: int
    only_first: tuple[ScoredRow, ...]
    only_second: tuple[ScoredRow, ...]
    p_value: float


def pairs(rows: Sequence[ScoredRow]) -> tuple[Pair, ...]:
    """Every pair of detectors; empty for one detector or no rows."""
    return tuple(_pair(rows, a, b) for a, b in combinations(rows[0].readings if rows else (), 2))


def flips(first: Sequence[ScoredRow], second: Sequence[ScoredRow], label: int) -> Flips:
    """Compare two guards on the rows of one label that both could read.

    Source of the test: McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", 1947, in its exact form.
    """
    others = {_key(row): row.flagged for row in second}
    shared = [row for row in first if row.label == label and _key(row) in others]
    only_first = tuple(row for row in shared if row.flagged and not others[_key(row)])
    only_second = tuple(row for row in shared if not row.flagged and others[_key(row)])
    count = len(only_first) + len(only_second)
    p_value = float(binomtest(len(only_first), count).pvalue) if count else 1.0
    return Flips(len(shared), only_first, only_second, p_value)


def _pair(rows: Sequence[ScoredRow], first: str, second: str) -> Pair:
    a, b = flags_of(rows, first), flags_of(rows, second)
    return Pair(
        first,
        second,
        both=int((a & b).sum()),
        only_first=int((a & ~b).sum()),
        only_second=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
        kappa=float(cohen_kappa_score(a, b)) if len(np.unique([a, b])) > 1 else None,
        rank_correlation=_rank_correlation(scores_of(rows, first), scores_of(rows, second)),
    )


def _rank_correlation(a: Array, b: Array) -> float | None:
    if len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)


def _key(row: ScoredRow) -> tuple[str, str, str]:
    return row.file, row.row.place, row.row.id
