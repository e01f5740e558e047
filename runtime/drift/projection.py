"""Where a checkpoint lies in trait space, and how far it moved from its base."""

import numpy as np

from layerguard.runtime.types import Array


def project(states: Array, directions: Array) -> Array:
    """Mean projection of some prompts' states on each trait direction, pi_t = mean_i <h_i, v_t>.

    Args:
        states: [prompts, hidden], the last prompt token's state at the monitored layer.
        directions: [traits, hidden], unit rows.

    Returns:
        float64 [traits], in the unit of the states.

    Source: arXiv 2606.07631, checkpoint measurement; ``tests/reference/drift.py``.
    """
    with np.errstate(invalid="ignore"):  # a state that is not finite shows in the result
        mean = states.mean(axis=0, dtype=np.float64)
        projection: Array = directions.astype(np.float64) @ mean
    return projection


def mean_norm(states: Array) -> float:
    """N = mean_i ||h_i||, the unit in which drift is given; of the base model's states."""
    return float(np.linalg.norm(states.astype(np.float64), axis=1).mean())


def drift(projection: Array, base_projection: Array, base_norm: float | Array) -> Array:
    """Drift (pi - pi_0) / N, float64 [..., traits]: a share of the base's mean state length.

    Published as "cosine-normalised", though it is no cosine: one scalar N of the base model
    divides every checkpoint's shift.
    """
    shifted: Array = (projection - base_projection) / base_norm
    return shifted
