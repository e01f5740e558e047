"""Shares of flagged rows with their intervals, over all rows and by group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from layerguard.calibration.evaluation.scored_rows import BANDS, ScoredRow

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """A share ``flagged / n`` with its 95 % interval from ``low`` to ``high``; n is at least 1."""

    n: int
    flagged: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The flagged share."""
        return self.flagged / self.n


@dataclass(frozen=True, slots=True)
class GroupRates:
    """The rates of one source or length band.

    Attributes:
        group: name of the group.
        false_alarms: of the guard on clean rows; None without clean rows.
        detection: of the guard on harmful rows; None without harmful rows.
        false_alarms_by_detector: the same for each detector alone, if there are clean rows.
    """

    group: str
    false_alarms: Rate | None
    detection: Rate | None
    false_alarms_by_detector: dict[str, Rate]


def rate(flags: Sequence[bool]) -> Rate | None:
    """The flagged share with its Clopper-Pearson interval; None without rows.

    The interval is exact: it holds the true share with a probability of at least 95 %, if the rows
    are independent draws. Source: Clopper and Pearson, "The use of confidence or fiducial limits
    illustrated in the case of the binomial", 1934.
    """
    if not len(flags):
        return None
    count = int(sum(flags))
    interval = binomtest(count, len(flags)).proportion_ci(CONFIDENCE, method="exact")
    return Rate(len(flags), count, float(interval.low), float(interval.high))


def rates_of(group: str, rows: Sequence[ScoredRow]) -> GroupRates:
    """The rates of some rows as one group."""
    clean = [row for row in rows if row.label == 0]
    by_detector = {
        name: rate([row.readings[name].flagged for row in clean])
        for name in (rows[0].readings if rows else ())
    }
    return GroupRates(
        group,
        false_alarms=rate([row.flagged for row in clean]),
        detection=rate([row.flagged for row in rows if row.label == 1]),
        false_alarms_by_detector={name: own for name, own in by_detector.items() if own},
    )


def by_source(rows: Sequence[ScoredRow]) -> tuple[GroupRates, ...]:
    """The rates of each source, in alphabetical order."""
    return _grouped(rows, lambda row: row.source, sorted({row.source for row in rows}))


def by_length(rows: Sequence[ScoredRow]) -> tuple[GroupRates, ...]:
    """The rates of each length band that has rows, shortest first."""
    return _grouped(rows, lambda row: row.band, BANDS)


def _grouped(
    rows: Sequence[ScoredRow], group_of: Callable[[ScoredRow], str], groups: Sequence[str]
) -> tuple[GroupRates, ...]:
    members: dict[str, list[ScoredRow]] = {group: [] for group in groups}
    for row in rows:
        members[group_of(row)].append(row)
    return tuple(rates_of(group, own) for group, own in members.items() if own)
