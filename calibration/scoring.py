"""Scores of rows by detectors as they serve: what those that are kept make of other texts."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from layerguard.calibration.collect import read_once
from layerguard.calibration.leakage import prompt_group
from layerguard.calibration.metrics import failing_closed
from layerguard.runtime.binding import worst_readings
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


class Scorer:
    """A ``Reader`` that scores rows by some detectors, and keeps the scores alone.

    A row that one of them gives no finite score is of no use to any.

    Attributes:
        scored: rows and their scores, in the order of the detectors.
    """

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self._detectors = dict(detectors)
        self.taps = {detector.tap for detector in self._detectors.values()}
        self.scored: list[tuple[Row, tuple[float, ...]]] = []

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """See ``Reader``."""
        found = [worst_readings(detector, pooled) for detector in self._detectors.values()]
        faults = []
        for row, readings in zip(rows, zip(*found, strict=True), strict=True):
            invalid = [r.detector for r in readings if r.status == "invalid"]
            if invalid:
                faults.append(
                    f"{row.place}: found no finite score by {', '.join(invalid)}, and the row sets "
                    "no threshold; leave it out, or export the model in float32"
                )
            else:
                self.scored.append((row, tuple(reading.score for reading in readings)))
        return faults

    def columns(self) -> dict[str, dict[str, float]]:
        """By detector, the largest score of each text's rows."""
        return {
            name: largest((row, scores[place]) for row, scores in self.scored)
            for place, name in enumerate(self._detectors)
        }


def score_columns(
    backbone: Backbone, detectors: Mapping[str, Detector], rows: Sequence[Row], faults: list[str]
) -> dict[str, dict[str, float]]:
    """By detector, the scores of the rows' texts; a row without finite ones goes to ``faults``.

    Raises:
        CalibrationError: no row could be scored.
    """
    scorer = Scorer(detectors)
    faults += read_once(backbone, rows, [scorer], "scoring rows")
    if not scorer.scored:
        raise CalibrationError(
            f"none of {len(rows)} rows could be scored; expected texts: {'; '.join(faults[:3])}"
        )
    return scorer.columns()


def largest(scored: Iterable[tuple[Row, float]]) -> dict[str, float]:
    """The largest score of each text's rows, by ``prompt_group``."""
    found: dict[str, float] = {}
    for row, score in scored:
        text = prompt_group(row)
        found[text] = max(score, found.get(text, score))
    return found


def of_rows(scores: Array, owner: Array, rows: int) -> Array:
    """The largest score of each row's windows, float64 [rows]; one not finite is the largest."""
    worst = np.full(rows, -np.inf)
    np.maximum.at(worst, owner, failing_closed(scores))
    return worst
