"""The scores of clean rows by a detector that was fitted to labelled rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerguard.calibration.rows.leakage import normalised, prompt_group
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.thresholds.text_scores import TextScorer, largest
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row


class LabelledFit:
    """A detector fitted to labelled rows, and its scores of clean rows.

    Without clean rows, the labelled rows of label 0 are used. A clean row in the training set gets
    its held-out score. If a clean row shares only its prompt with a training row, no unbiased
    score exists, and its text gets none.

    Attributes:
        fresh: the clean rows outside the training set, which ``scorer`` has to read.
        scorer: scores the rows of ``fresh``.
    """

    def __init__(
        self, detector: FittedDetector, held_out: Sequence[tuple[Row, float]], clean: Sequence[Row]
    ) -> None:
        """Find the clean rows that have a held-out score.

        Args:
            detector: the fitted detector, without scores of clean rows.
            held_out: its training rows with their held-out scores.
            clean: clean rows; may be empty.
        """
        self._detector = detector
        self._held_out = [(row, score) for row, score in held_out if not row.label]
        self._trained_on = {prompt_group(row) for row in detector.rows}
        self._clean = clean
        self.fresh = [row for row in clean if prompt_group(row) not in self._trained_on]
        # binding needs a threshold, on which scores do not depend; the real one is set from them
        params = {**detector.params, **published_threshold(0.0).arrays()}
        bound = REGISTRY[detector.name].bind(params, detector.tap)
        self.scorer = TextScorer({detector.name: bound})

    def detector(self) -> FittedDetector:
        """The detector with its scores of clean texts, after ``scorer`` has read ``fresh``."""
        return replace(self._detector, clean_scores=self._scores())

    def _scores(self) -> Mapping[str, float]:
        if not self._clean:
            return largest(self._held_out)
        known = {_content(row): score for row, score in self._held_out}
        scored = [(row, known[_content(row)]) for row in self._clean if _content(row) in known]
        scored += [(row, score) for row, (score,) in self.scorer.scored]
        without = {prompt_group(row) for row in self._clean} & self._trained_on
        without -= {prompt_group(row) for row in self._clean if _content(row) in known}
        return {text: score for text, score in largest(scored).items() if text not in without}


def _content(row: Row) -> str:
    return normalised(row.request.content())
