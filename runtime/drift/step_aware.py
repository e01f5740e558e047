"""The step-aware alarm, for long training runs.

A long benign fine-tune slowly reaches a drift that would indicate misalignment early in a short
run. The published alarm is a logistic model of the drift along its first principal component, the
training step, and their ratio.
"""

from collections.abc import Mapping

import numpy as np

from layerguard.runtime.bundle.arrays import Shape
from layerguard.runtime.types import Array

PROBABILITY_THRESHOLD = 0.5
"""The alarm is raised above this probability."""


def step_arrays(traits: int) -> dict[str, tuple[str, Shape]]:
    """Names, dtypes and shapes of the frozen logistic model."""
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
        component: float64 [traits], length 1.
    """
    distance = 100 * np.abs(drift @ component)
    return np.stack([distance, steps.astype(np.float64), distance / steps], axis=1)


def step_probability(params: Mapping[str, Array], drift: Array, steps: Array) -> Array:
    """Probability, float64 [n], that misalignment is above tau; NaN if the drift is NaN."""
    features = step_features(drift, steps, params["step_component"])
    scaled = (features - params["step_mean"]) / params["step_scale"]
    logit = scaled @ params["step_coefficients"] + params["step_intercept"]
    with np.errstate(over="ignore"):  # exp overflows to infinity; the probability is then 0
        probability: Array = 1 / (1 + np.exp(-logit))
    return probability
