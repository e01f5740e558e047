"""Fit one detector to recorded states: parameters, and honest scores of clean texts.

The scores are what the decision over all detectors is calibrated on (``calibration/decision.py``):
every one of them comes from parameters that never saw its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerguard.calibration import lcf, siren, weightwatch
from layerguard.calibration.collect import Collected
from layerguard.calibration.freeze import Calibrated
from layerguard.calibration.labelled import labels_of
from layerguard.calibration.leakage import normalised, prompt_group
from layerguard.calibration.scoring import Scorer, largest, of_rows
from layerguard.calibration.states import States
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted detector.

    Attributes:
        calibrated: what is frozen.
        column: its scores of clean texts, by ``prompt_group``.
    """

    calibrated: Calibrated
    column: Mapping[str, float]


def fit_lcf(found: Collected[States], mode: lcf.Mode, target_fpr: float, seed: int) -> Fitted:
    """LCF on the states of clean rows.

    Raises:
        CalibrationError: see ``lcf.fit``.
    """
    trained = lcf.train(found.states, mode, target_fpr, seed, _groups(found))
    calibrated = Calibrated("lcf", mode, trained.params, found.rows, seed, trained.settings)
    return Fitted(calibrated, largest(_scored(found, trained.held_out)))


def fit_weightwatch(
    found: Collected[States],
    watched: Mapping[str, Array],
    mode: weightwatch.Mode,
    target_fpr: float,
    seed: int,
) -> Fitted:
    """WeightWatch on the extremes of clean conversations along the directions that tuning added.

    Raises:
        CalibrationError: see ``weightwatch.fit``.
    """
    trained = weightwatch.train(found.states, watched, mode, target_fpr, seed, _groups(found))
    calibrated = Calibrated("weightwatch", mode, trained.params, found.rows, seed, trained.settings)
    return Fitted(calibrated, largest(_scored(found, trained.held_out)))


class SirenFit:
    """SIREN fitted to labelled rows, and what it makes of clean rows.

    Clean rows without any are the labelled ones of label 0. Of a clean row that was trained on, the
    score is the held-out one. A clean row that shares no more than its prompt with a training row
    has no honest score, and its text none in the column.

    Attributes:
        fresh: the clean rows that ``scorer`` has to read.
        scorer: scores them.
    """

    def __init__(
        self,
        found: Collected[States],
        clean: Sequence[Row],
        eta: float,
        target_fpr: float,
        seed: int,
    ) -> None:
        """Fit.

        Raises:
            CalibrationError: see ``siren.fit``.
        """
        labels = labels_of(found.rows)[found.owner]
        trained = siren.train(
            found.states, labels, _groups(found), eta=eta, seed=seed, target_fpr=target_fpr
        )
        self._calibrated = Calibrated(
            "siren", "cross-fit", trained.params, found.rows, seed, trained.settings
        )
        scored = _scored(found, trained.held_out)
        self._held_out = [(row, score) for row, score in scored if not row.label]
        self._trained_on = {prompt_group(row) for row in found.rows}
        self._clean = clean
        self.fresh = [row for row in clean if prompt_group(row) not in self._trained_on]
        self.scorer = Scorer({"siren": REGISTRY["siren"].bind(trained.params)})

    def fitted(self) -> Fitted:
        """The detector with its column, once ``scorer`` has read the fresh rows."""
        if not self._clean:
            return Fitted(self._calibrated, largest(self._held_out))
        known = {_content(row): score for row, score in self._held_out}
        scored = [(row, known[_content(row)]) for row in self._clean if _content(row) in known]
        scored += [(row, score) for row, (score,) in self.scorer.scored]
        without = {prompt_group(row) for row in self._clean} & self._trained_on
        without -= {prompt_group(row) for row in self._clean if _content(row) in known}
        column = {text: score for text, score in largest(scored).items() if text not in without}
        return Fitted(self._calibrated, column)


def _groups(found: Collected[States]) -> list[str]:
    return [prompt_group(found.rows[row]) for row in found.owner]


def _scored(found: Collected[States], scores: Array) -> list[tuple[Row, float]]:
    """The rows with the largest score of their windows."""
    worst = of_rows(scores, found.owner, len(found.rows))
    return list(zip(found.rows, worst.tolist(), strict=True))


def _content(row: Row) -> str:
    return normalised(row.request.content())
