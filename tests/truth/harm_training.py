"""SIREN trained without one harm source and one benign source, and its scores of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.rows.folds import group_codes, group_maxima
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.siren import train
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array
from tests.truth.harm_states import Model, Size, recorded
from tests.truth.operating_point import RATES, Scored
from tests.truth.public_sources import BENIGN, HARM, without_overlap

MEAN = "mean of both"
"""Two models at once: the mean of their SIRENs' probabilities."""


@dataclass(frozen=True, slots=True)
class Training:
    """How SIREN is trained.

    Attributes:
        name: its name in the tables.
        by_source: whether folds hold out whole sources, or prompts.
        exposure: whether benign sources are among the clean rows.
    """

    name: str
    by_source: bool
    exposure: bool


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows, and their states by model, float32 [n, L + 1, hidden]."""

    rows: Sequence[Row]
    states: Mapping[str, Array]

    @property
    def labels(self) -> Array:
        """The label of each row, int64 [n]."""
        return np.array([row.label for row in self.rows])

    def take(self, chosen: Sequence[int]) -> "Part":
        """Some of the rows."""
        states = {model: values[list(chosen)] for model, values in self.states.items()}
        return Part([self.rows[i] for i in chosen], states)


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Scores by model of the sources that were left out, and what was trained on.

    Attributes:
        scored: the scores of each model.
        trained: number of training rows.
        dropped: number of training rows that were left out because the sources hold their text.
    """

    scored: Mapping[str, Scored]
    trained: int
    dropped: int


def load(models: Sequence[Model], size: Size) -> dict[str, Part]:
    """The rows of every source, with the states of the models."""
    parts = {}
    for source in (*HARM, *BENIGN):
        found = {model: recorded(model, source, size) for model in models}
        states = {model: one.states for model, one in found.items()}
        parts[source] = Part(found[models[0]].rows, states)
    return parts


def left_out(parts: Mapping[str, Part], harm: str, benign: str, training: Training) -> LeftOut:
    """Train on all harm sources but one, with the benign sources but one where it says so."""
    sources = [name for name in HARM if name != harm]
    sources += [name for name in BENIGN if name != benign and training.exposure]
    whole = [*parts[harm].rows, *parts[benign].rows]
    kept = {name: _kept(parts[name], whole) for name in sources}
    of_row = np.repeat(sources, [len(part.rows) for part in kept.values()])
    rows = [row for part in kept.values() for row in part.rows]
    labels = np.concatenate([part.labels for part in kept.values()])
    prompts = [prompt_group(row) for row in rows]
    held_out, scores = {}, {}
    for model in parts[harm].states:
        states = np.concatenate([part.states[model] for part in kept.values()])
        fitted = train(states, labels, prompts, sources=of_row if training.by_source else None)
        held_out[model] = fitted.held_out
        params = {**fitted.params, **published_threshold(0.0).arrays()}
        scores[model] = [_scores(params, parts[name].states[model]) for name in (harm, benign)]
    if len(held_out) > 1:
        held_out[MEAN] = np.mean(list(held_out.values()), axis=0)
        scores[MEAN] = [np.mean(pair, axis=0) for pair in zip(*scores.values(), strict=True)]
    codes, clean, tested = group_codes(prompts, len(rows)), labels == 0, parts[harm].labels
    scored = {}
    for model, (of_harm, of_benign) in scores.items():
        known = group_maxima(held_out[model][clean], codes[clean])
        thresholds = [conformal.threshold(known, rate) for rate in RATES]
        scored[model] = Scored(of_harm[tested == 0], of_harm[tested == 1], of_benign, thresholds)
    before = sum(len(parts[name].rows) for name in sources)
    return LeftOut(scored, len(rows), before - len(rows))


def _kept(part: Part, test: Sequence[Row]) -> Part:
    kept = {row.id for row in without_overlap(part.rows, test)}
    return part.take([i for i, row in enumerate(part.rows) if row.id in kept])


def _scores(params: Mapping[str, Array], states: Array) -> Array:
    """The harm probability of every row, float64 [n]."""
    bound = REGISTRY["siren"].bind(params)
    layers = np.ascontiguousarray(states.transpose(1, 0, 2))
    return np.array([reading.score for reading in bound.score_pooled(layers)])
