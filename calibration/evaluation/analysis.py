"""Everything that a report shows of an evaluation, computed once: page and file agree."""

from collections.abc import Sequence
from dataclasses import dataclass

from layerguard.calibration.evaluation.agreement import Pair, pairs
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.p_values import PValueCheck, check_p_values
from layerguard.calibration.evaluation.ranking import GUARD, Ranking, rank
from layerguard.calibration.evaluation.rates import GroupRates, by_length, by_source, rates_of
from layerguard.calibration.evaluation.scored_rows import (
    ScoredRow,
    flags_of,
    label_array,
    p_values_of,
    scores_of,
)

ALL_ROWS = "all rows"
"""Name of the group of all rows."""

_WORST = 20
"""Number of errors of each kind that are shown."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """The decisions of a detector or the guard at its thresholds, by label, in numbers of rows."""

    method: str
    detected: int
    missed: int
    false_alarms: int
    passed: int

    @property
    def recall(self) -> float | None:
        """The flagged share of harmful rows; None without such rows."""
        return _share(self.detected, self.detected + self.missed)

    @property
    def fpr(self) -> float | None:
        """The flagged share of clean rows; None without such rows."""
        return _share(self.false_alarms, self.false_alarms + self.passed)

    @property
    def precision(self) -> float | None:
        """The harmful share of flagged rows; None if nothing is flagged."""
        return _share(self.detected, self.detected + self.false_alarms)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The statistics of an evaluation.

    Attributes:
        total: the rates over all rows.
        by_source: the rates of each source.
        by_length: the rates of each length band.
        rankings: of the guard, if it has p-values, each detector and each baseline; empty if the
            rows have one label only.
        confusions: of the guard and of each detector.
        p_values: of the guard on clean rows; None if it has none, or there are no clean rows.
        false_alarms: the flagged clean rows with the smallest p-values, smallest first.
        misses: the harmful rows that pass with the largest p-values, largest first.
        agreement: every pair of detectors.
    """

    total: GroupRates
    by_source: tuple[GroupRates, ...]
    by_length: tuple[GroupRates, ...]
    rankings: tuple[Ranking, ...]
    confusions: tuple[Confusion, ...]
    p_values: PValueCheck | None
    false_alarms: tuple[ScoredRow, ...]
    misses: tuple[ScoredRow, ...]
    agreement: tuple[Pair, ...]


def analyse(evaluation: Evaluation) -> Analysis:
    """Compute the statistics of an evaluation; nothing is run again."""
    rows = evaluation.rows
    clean = [row for row in rows if row.label == 0]
    clean_p_values = p_values_of(clean)
    detectors = tuple(rows[0].readings) if rows else ()
    return Analysis(
        total=rates_of(ALL_ROWS, rows),
        by_source=by_source(rows),
        by_length=by_length(rows),
        rankings=_rankings(rows),
        confusions=tuple(_confusion(rows, name) for name in (None, *detectors)),
        p_values=check_p_values(clean_p_values) if clean and clean_p_values is not None else None,
        false_alarms=tuple(
            sorted((row for row in clean if row.flagged), key=_evidence_of_harm)[:_WORST]
        ),
        misses=tuple(
            sorted(
                (row for row in rows if row.label == 1 and not row.flagged),
                key=_evidence_of_harm,
                reverse=True,
            )[:_WORST]
        ),
        agreement=pairs(rows),
    )


def smallest_p_value(row: ScoredRow) -> float:
    """The guard's p-value; without a promised rate, the smallest of the detectors'."""
    if row.p_value is not None:
        return row.p_value
    return min(reading.p_value for reading in row.readings.values())


def _evidence_of_harm(row: ScoredRow) -> tuple[float, float]:
    """The p-value; of equal ones, the largest ratio of a detector's score to its threshold first.

    The smallest p-value of n clean rows, 1 / (n + 1), is often that of many rows.
    """
    ratios = [
        reading.score / abs(reading.threshold) if reading.threshold else reading.score
        for reading in row.readings.values()
    ]
    return smallest_p_value(row), -max(ratios)


def _rankings(rows: Sequence[ScoredRow]) -> tuple[Ranking, ...]:
    labels, p_values = label_array(rows), p_values_of(rows)
    names = [*rows[0].readings, *rows[0].baselines] if rows else []
    scores = {name: scores_of(rows, name) for name in names}
    if p_values is not None:
        scores = {GUARD: -p_values, **scores}
    found = [rank(name, labels, own) for name, own in scores.items()]
    return tuple(ranking for ranking in found if ranking is not None)


def _confusion(rows: Sequence[ScoredRow], detector: str | None) -> Confusion:
    labels, flags = label_array(rows) == 1, flags_of(rows, detector)
    return Confusion(
        detector or GUARD,
        detected=int((labels & flags).sum()),
        missed=int((labels & ~flags).sum()),
        false_alarms=int((~labels & flags).sum()),
        passed=int((~labels & ~flags).sum()),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
