"""Projection of a checkpoint on the trait directions, and its drift from the base model."""

import numpy as np

from layerguard.runtime.types import Array


def project(states: Array, directions: Array) -> Array:
    """Mean projection of the prompts' states on each trait direction, pi_t = mean_i <h_i, v_t>.

    Args:
        states: [prompts, hidden], the last prompt token's state at the monitored layer.
        directions: [traits, hidden], rows of length 1.

    Returns:
        float64 [traits], in the unit of the states.

    Source: arXiv 2606.07631, checkpoint measurement; ``tests/reference/drift.py``.
    """
    with np.errstate(invalid="ignore"):  # a non-finite state gives a non-finite result
        mean = states.mean(axis=0, dtype=np.float64)
        projection: Array = directions.astype(np.float64) @ mean
    return projection


def mean_norm(states: Array) -> float:
    """N = mean_i ||h_i|| over the base model's states; drift is given in this unit."""
    return float(np.linalg.norm(states.astype(np.float64), axis=1).mean())


def drift(projection: Array, base_projection: Array, base_norm: float | Array) -> Array:
    """Drift (pi - pi_0) / N, float64 [..., traits]: a fraction of the base's mean state length.

    The paper calls this "cosine-normalised", but it is not a cosine: every checkpoint's shift is
    divided by the same scalar N of the base model.
    """
    shifted: Array = (projection - base_projection) / base_norm
    return shifted
