"""Score texts with a bundle's detectors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.states.passes import Reduction, read_once
from layerguard.runtime.binding import worst_readings
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array, Reading, Tap


@dataclass(frozen=True, slots=True)
class WorstReadings:
    """A ``Reduction`` that keeps the reading of each row's worst window by each detector."""

    detectors: Mapping[str, Detector]

    @property
    def taps(self) -> set[Tap]:
        """See ``Reduction``."""
        return {detector.tap for detector in self.detectors.values()}

    def __call__(
        self, rows: Sequence[Row], pooled: PooledStates, reader: TokenReader
    ) -> list[list[Reading]]:
        """The readings of the rows by each detector."""
        del rows, reader
        return [worst_readings(detector, pooled) for detector in self.detectors.values()]


class TextScorer:
    """A ``Reader`` that scores rows with some detectors, and stores only the scores.

    A row is not used if one of the detectors gives it no finite score.

    Attributes:
        reduction: scores the rows.
        scored: rows with their scores, in the order of the detectors.
    """

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self._detectors = dict(detectors)
        self.reduction: Reduction = WorstReadings(self._detectors)
        self.scored: list[tuple[Row, tuple[float, ...]]] = []

    def add(self, rows: Sequence[Row], kept: Any) -> list[str]:
        """See ``Reader``."""
        faults = []
        for row, readings in zip(rows, zip(*kept, strict=True), strict=True):
            invalid = [r.detector for r in readings if r.status == "invalid"]
            if invalid:
                faults.append(
                    f"{row.place}: found no finite score by {', '.join(invalid)}; the row is not "
                    "used for thresholds. Leave it out, or export the model in float32"
                )
            else:
                self.scored.append((row, tuple(reading.score for reading in readings)))
        return faults

    def by_detector(self) -> dict[str, dict[str, float]]:
        """The largest score of each text's rows, by detector and text."""
        return {
            name: largest((row, scores[place]) for row, scores in self.scored)
            for place, name in enumerate(self._detectors)
        }


def score_texts(
    backbone: Backbone, detectors: Mapping[str, Detector], rows: Sequence[Row], faults: list[str]
) -> dict[str, dict[str, float]]:
    """The scores of the rows' texts by detector; a row without a finite score adds a fault.

    Raises:
        CalibrationError: no row could be scored.
    """
    scorer = TextScorer(detectors)
    faults += read_once(backbone, rows, [scorer], "scoring rows")
    if not scorer.scored:
        raise CalibrationError(
            f"none of {len(rows)} rows could be scored; expected texts: {'; '.join(faults[:3])}"
        )
    return scorer.by_detector()


def largest(scored: Iterable[tuple[Row, float]]) -> dict[str, float]:
    """The largest score of each text's rows, by ``prompt_group``."""
    scores: dict[str, float] = {}
    for row, score in scored:
        text = prompt_group(row)
        scores[text] = max(score, scores.get(text, score))
    return scores


def worst_windows(scores: Array, owner: Array, rows: int) -> Array:
    """The largest score of each row's windows, float64 [rows]; non-finite counts as the largest."""
    worst = np.full(rows, -np.inf)
    np.maximum.at(worst, owner, failing_closed(scores))
    return worst


def failing_closed(scores: Array) -> Array:
    """The scores, with non-finite ones replaced by infinity, which exceeds every threshold."""
    worst: Array = np.where(np.isfinite(scores), scores, np.inf)
    return worst
