"""Fit one detector to rows: states through the graph, parameters, and honest scores of clean texts.

The scores are what the decision over all detectors is calibrated on (``calibration/decision.py``):
every one of them comes from parameters that never saw its text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration import lcf, siren, weightwatch
from layerguard.calibration.collect import Collected, collect
from layerguard.calibration.freeze import Calibrated
from layerguard.calibration.labelled import labels_of
from layerguard.calibration.leakage import normalised, prompt_group
from layerguard.calibration.weights import Tuning
from layerguard.calibration.weightwatch_directions import PUBLISHED_DROP, directions, watching
from layerguard.runtime.backbone import Backbone
from layerguard.runtime.bundle.manifest import ModelCard
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows import Row
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted detector.

    Attributes:
        calibrated: what is frozen.
        column: its scores of clean texts, by ``prompt_group``.
        faults: a sentence for each row that could not be read.
    """

    calibrated: Calibrated
    column: Mapping[str, float]
    faults: tuple[str, ...]


def fit_lcf(
    backbone: Backbone, clean: Sequence[Row], mode: lcf.Mode, target_fpr: float, seed: int
) -> Fitted:
    """LCF on clean rows.

    Raises:
        CalibrationError: see ``lcf.fit``.
    """
    found = collect(backbone, clean, REGISTRY["lcf"].tap, "clean rows")
    trained = lcf.train(found.states, mode, target_fpr, seed, _groups(found))
    calibrated = Calibrated("lcf", mode, trained.params, found.rows, seed, trained.settings)
    scores = _by_row(found, trained.held_out)
    return Fitted(calibrated, largest(zip(found.rows, scores, strict=True)), found.faults)


def fit_siren(
    backbone: Backbone,
    labelled: Sequence[Row],
    clean: Sequence[Row],
    eta: float,
    target_fpr: float,
    seed: int,
) -> Fitted:
    """SIREN on labelled rows; clean rows without any are the labelled ones of label 0.

    Of a clean row that was trained on, the score is the held-out one. A clean row that shares no
    more than its prompt with a training row has no honest score, and its text none in the column.

    Raises:
        CalibrationError: see ``siren.fit``.
    """
    tap = REGISTRY["siren"].tap
    found = collect(backbone, labelled, tap, "labelled rows")
    labels = labels_of(found.rows)
    trained = siren.train(
        found.states,
        labels[found.owner],
        _groups(found),
        eta=eta,
        seed=seed,
        target_fpr=target_fpr,
    )
    calibrated = Calibrated(
        "siren", "cross-fit", trained.params, found.rows, seed, trained.settings
    )
    rows = zip(found.rows, _by_row(found, trained.held_out), strict=True)
    held_out = [(row, score) for row, score in rows if not row.label]
    if not clean:
        return Fitted(calibrated, largest(held_out), found.faults)
    trained_on = {prompt_group(row) for row in found.rows}
    known = {_content(row): score for row, score in held_out}
    fresh = [row for row in clean if prompt_group(row) not in trained_on]
    scored = [(row, known[_content(row)]) for row in clean if _content(row) in known]
    faults = found.faults
    if fresh:
        unseen = collect(backbone, fresh, tap, "clean rows")
        detector = REGISTRY["siren"].bind(trained.params)
        layers = [np.ascontiguousarray(layer) for layer in unseen.states.swapaxes(0, 1)]
        scores = np.array([reading.score for reading in detector.score_pooled(layers)])
        scored += zip(unseen.rows, _by_row(unseen, scores), strict=True)
        faults += unseen.faults
    without = {prompt_group(row) for row in clean} & trained_on
    without -= {prompt_group(row) for row in clean if _content(row) in known}
    column = {text: score for text, score in largest(scored).items() if text not in without}
    return Fitted(calibrated, column, faults)


def fit_weightwatch(
    backbone: Backbone,
    clean: Sequence[Row],
    tuning: Tuning,
    model: ModelCard,
    mode: weightwatch.Mode,
    target_fpr: float,
    seed: int,
) -> Fitted:
    """WeightWatch on clean conversations, along the directions that tuning added.

    Raises:
        CalibrationError: see ``weightwatch.fit`` and ``weightwatch_directions.directions``.
    """
    drop = PUBLISHED_DROP if mode == "reference" else 0
    watched = directions(tuning, model.total_layers, drop=drop, kept=model.layers)
    found = collect(backbone, clean, watching(watched), "clean conversations")
    extremes = np.ascontiguousarray(found.states[:, 0])
    trained = weightwatch.train(extremes, watched, mode, target_fpr, seed, _groups(found))
    calibrated = Calibrated("weightwatch", mode, trained.params, found.rows, seed, trained.settings)
    scores = _by_row(found, trained.held_out)
    return Fitted(calibrated, largest(zip(found.rows, scores, strict=True)), found.faults)


def largest(scored: Iterable[tuple[Row, float]]) -> dict[str, float]:
    """The largest score of each text's rows, by ``prompt_group``."""
    found: dict[str, float] = {}
    for row, score in scored:
        text = prompt_group(row)
        found[text] = max(score, found.get(text, score))
    return found


def _groups(found: Collected) -> list[str]:
    return [prompt_group(found.rows[row]) for row in found.owner]


def _by_row(found: Collected, scores: Array) -> list[float]:
    """The largest score of each row's windows."""
    worst = np.full(len(found.rows), -np.inf)
    np.maximum.at(worst, found.owner, scores)
    largest_of_row: list[float] = worst.tolist()
    return largest_of_row


def _content(row: Row) -> str:
    return normalised(row.request.content())
