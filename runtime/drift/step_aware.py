"""The alarm for long runs, which knows how many steps the drift took.

Slow drift over a long benign fine-tune reaches lengths that mean trouble early in a short one. The
published alarm is a logistic model of the drift along its first principal component, the step, and
their ratio.
"""

from collections.abc import Mapping

import numpy as np

from layerguard.runtime.detectors.parameters import Shape
from layerguard.runtime.types import Array

LIMIT = 0.5
"""Probability above which the alarm is raised."""


def step_arrays(traits: int) -> dict[str, tuple[str, Shape]]:
    """Names, dtypes and shapes of the frozen alarm."""
    return {
        "step_component": ("float64", (traits,)),
        "step_mean": ("float64", (3,)),
        "step_scale": ("float64", (3,)),
        "step_coefficients": ("float64", (3,)),
        "step_intercept": ("float64", ()),
    }


def step_features(drift: Array, steps: Array, component: Array) -> Array:
    """Features {100 |<drift, component>|, step, their ratio}, float64 [n, 3].

    Args:
        drift: float64 [n, traits].
        steps: [n], 1 or more.
        component: float64 [traits], unit length.
    """
    moved = 100 * np.abs(drift @ component)
    return np.stack([moved, steps.astype(np.float64), moved / steps], axis=1)


def step_probability(params: Mapping[str, Array], drift: Array, steps: Array) -> Array:
    """Probability, float64 [n], that misalignment is above the limit; NaN where drift is."""
    features = step_features(drift, steps, params["step_component"])
    scaled = (features - params["step_mean"]) / params["step_scale"]
    logit = scaled @ params["step_coefficients"] + params["step_intercept"]
    with np.errstate(over="ignore"):  # exp(inf): the probability is zero
        probability: Array = 1 / (1 + np.exp(-logit))
    return probability
