"""The rules that the truth tables compare: each fits to texts of known sources, scores others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from layerguard.calibration import delta, lcf, weightwatch
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import Array
from tests.truth.states import Model, Texts


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit: held-out scores of its texts, float64 [n], and the scores of any others."""

    held_out: Array
    score: Callable[[Texts], Array]


Rule = Callable[[Texts, Sequence[str]], Fitted]
"""Fits to texts, of which each has the name of its source."""


def rules(model: Model) -> dict[tuple[str, str], Rule]:
    """The rules for a model, by detector and mode; LCF's alone without an adapter."""
    modes: tuple[delta.Mode, ...] = ("cross-fit", "by-source")
    found: dict[tuple[str, str], Rule] = {("lcf", mode): partial(_lcf, mode) for mode in modes}
    if model.adapter:
        for mode in modes:
            found["weightwatch", mode] = partial(_weightwatch, model.directions, mode)
            found["delta", mode] = partial(_delta, model.changed, mode)
    return found


def _lcf(mode: lcf.Mode, texts: Texts, sources: Sequence[str]) -> Fitted:
    fitted = lcf.train(texts.states, mode, sources=sources)
    bound = REGISTRY["lcf"].bind({**fitted.params, **published_threshold(0.0).arrays()})

    def score(others: Texts) -> Array:
        layers = list(np.ascontiguousarray(others.states.swapaxes(0, 1)))
        return np.array([reading.score for reading in bound.score_pooled(layers)])

    return Fitted(fitted.held_out, score)


def _weightwatch(
    directions: Mapping[str, Array], mode: weightwatch.Mode, texts: Texts, sources: Sequence[str]
) -> Fitted:
    fitted = weightwatch.train(texts.extremes, directions, mode, sources=sources)
    bound = REGISTRY["weightwatch"].bind({**fitted.params, **published_threshold(0.0).arrays()})

    def score(others: Texts) -> Array:
        return np.array([reading.score for reading in bound.score_pooled([others.extremes])])

    return Fitted(fitted.held_out, score)


def _delta(
    changed: tuple[Array, Array], mode: delta.Mode, texts: Texts, sources: Sequence[str]
) -> Fitted:
    fitted = delta.train(texts.added, *changed, mode, sources=sources)
    bound = REGISTRY["delta"].bind({**fitted.params, **published_threshold(0.0).arrays()})

    def score(others: Texts) -> Array:
        return np.array([reading.score for reading in bound.score_pooled([others.added])])

    return Fitted(fitted.held_out, score)
