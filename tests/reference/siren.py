"""SIREN's score as its runtime defines it, in float64.

Source: "LLM Safety From Within", arXiv 2604.18519, and the published package llm-siren 0.2.0:
features = concat over chosen layers of alpha_l * x_l[neurons_l], (Linear, ReLU) n times, Linear to
two logits, softmax; index 0 is "safe".
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def features(
    states: npt.ArrayLike,
    layers: Sequence[int],
    neurons: Sequence[Sequence[int]],
    alpha: Sequence[float],
) -> Doubles:
    """(rows, inputs) of pooled states (L + 1, rows, D), one list of neurons a chosen layer."""
    h = np.asarray(states, np.float64)
    parts = zip(layers, neurons, alpha, strict=True)
    return np.concatenate([weight * h[layer][:, chosen] for layer, chosen, weight in parts], axis=1)


def logits(feature: Doubles, weights: Sequence[Doubles], biases: Sequence[Doubles]) -> Doubles:
    """(rows, 2) of features (rows, inputs) and weights (out, in)."""
    value = feature
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        value = np.maximum(value @ np.asarray(weight, np.float64).T + bias, 0)
    return value @ np.asarray(weights[-1], np.float64).T + biases[-1]


def scores(logit: Doubles) -> Doubles:
    """softmax(logits)[1] of each row, (rows,)."""
    exponential = np.exp(logit - logit.max(axis=1, keepdims=True))
    return exponential[:, 1] / exponential.sum(axis=1)
