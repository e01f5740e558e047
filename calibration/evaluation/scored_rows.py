"""One labelled row with what the guard, its detectors and the baselines make of it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.rows.traffic import source_of
from layerguard.calibration.thresholds.text_scores import failing_closed
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Reading

_BAND_ENDS = (16, 64, 256)
BANDS = ("1 to 16 tokens", "17 to 64 tokens", "65 to 256 tokens", "over 256 tokens")
"""Bands of length, in tokens of the longest view of a row, before truncation."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row and its results.

    Attributes:
        file: name of the row's file.
        row: the row; it has a label.
        tokens: number of tokens of its longest view, before truncation.
        truncated: whether a part of it was not read.
        flagged: whether the guard flags it.
        p_value: conformal p-value of the guard, in (0, 1]; None if the bundle promises no rate.
        readings: by detector, of the worst window, at the thresholds of the row's domain.
        baselines: by baseline, the score; infinity where it is not finite.
    """

    file: str
    row: Row
    tokens: int
    truncated: bool
    flagged: bool
    p_value: float | None
    readings: Mapping[str, Reading]
    baselines: Mapping[str, float]

    @property
    def label(self) -> int:
        """0 (clean) or 1 (to be flagged)."""
        return int(self.row.label or 0)

    @property
    def source(self) -> str:
        """Where the row comes from: its source or domain, or else its file."""
        return source_of(self.row) or self.file

    @property
    def band(self) -> str:
        """Its band of length, one of ``BANDS``."""
        return BANDS[bisect_left(_BAND_ENDS, self.tokens)]

    @property
    def text(self) -> str:
        """The plain text of all turns."""
        return self.row.request.content()


def label_array(rows: Sequence[ScoredRow]) -> Array:
    """The labels, int64 [n]."""
    return np.array([row.label for row in rows], np.int64)


def flags_of(rows: Sequence[ScoredRow], detector: str | None = None) -> Array:
    """Which rows a detector flags, or the guard if none is given, bool [n]."""
    if detector is None:
        return np.array([row.flagged for row in rows], bool)
    return np.array([row.readings[detector].flagged for row in rows], bool)


def thresholds_of(rows: Sequence[ScoredRow], detector: str) -> Array:
    """A detector's threshold for each row, that of the row's domain, float64 [n]."""
    return np.array([row.readings[detector].threshold for row in rows], np.float64)


def scores_of(rows: Sequence[ScoredRow], method: str) -> Array:
    """The scores of a detector or a baseline, float64 [n]; infinity where not finite."""
    return failing_closed(
        np.array(
            [
                row.readings[method].score if method in row.readings else row.baselines[method]
                for row in rows
            ],
            np.float64,
        )
    )


def p_values_of(rows: Sequence[ScoredRow]) -> Array | None:
    """The guard's p-values, float64 [n]; None if one of the rows has none."""
    values = [row.p_value for row in rows]
    return None if None in values else np.array(values, np.float64)
