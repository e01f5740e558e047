"""A trait's direction in the residual stream, and how well it separates the trait's poles."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

PROBE_LEAST_ACCURACY = 0.8
"""A trait passes the probe above this accuracy."""

PROBE_LEAST_TRAITS = 0.75
"""Share of traits that must pass."""

_PROBE_FOLDS = 5
_PROBE_SEED = 42


def direction(positive: Array, negative: Array, trait: str) -> Array:
    """Unit difference of the mean states of both poles, float32 [hidden].

    v = (mean(P) - mean(N)) / ||mean(P) - mean(N)||, summed in float64.

    Args:
        positive: [system prompts, questions, hidden] of one layer.
        negative: the same for the negative pole.
        trait: name of the trait in error messages.

    Raises:
        InputError: an array has another shape.
        CalibrationError: a state is not finite, or the poles have the same mean.

    Source: arXiv 2606.07631, phase 1; published in bfloat16.
    """
    positive, negative = np.asarray(positive), np.asarray(negative)
    if positive.ndim != 3 or positive.shape != negative.shape or not positive.size:
        raise InputError(
            f"{trait}: found states {list(positive.shape)} and {list(negative.shape)}; expected "
            "[system prompts, questions, hidden] for each pole, with equal shapes"
        )
    if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
        raise CalibrationError(
            f"{trait}: its states are not finite; expected finite numbers. Export the base model "
            "in float32 if float16 overflows"
        )
    difference = _mean(positive) - _mean(negative)
    length = np.linalg.norm(difference)
    if length == 0:
        raise CalibrationError(
            f"{trait}: the model's mean state is the same under both poles; expected system "
            "prompts that change the state. Check that its template shows them"
        )
    unit: Array = (difference / length).astype(np.float32)
    return unit


def separation(positive: Array, negative: Array) -> float:
    """Standardised distance of the poles along held-out directions, unitless.

    For each pair of system prompts, one of each pole, the direction is computed from all other
    pairs, and the pair's states are projected on it. The value is the distance of the two means
    over the root of the mean variance of both poles. Pairs are held out because in many dimensions
    a direction always separates the prompts from which it was computed.

    Args:
        positive: [system prompts, questions, hidden] of one layer, two or more system prompts.
        negative: the same for the negative pole.
    """
    pairs = len(positive)
    poles = [states.astype(np.float64) for states in (positive, negative)]
    sums = [pole.mean(axis=1).sum(axis=0) for pole in poles]
    projected: list[list[Array]] = [[], []]
    for pair in range(pairs):
        means = [
            (total - pole[pair].mean(axis=0)) / (pairs - 1)
            for pole, total in zip(poles, sums, strict=True)
        ]
        difference = means[0] - means[1]
        unit = difference / max(float(np.linalg.norm(difference)), np.finfo(float).tiny)
        for pole, side in zip(poles, projected, strict=True):
            side.append(pole[pair] @ unit)
    first, second = (np.concatenate(side) for side in projected)
    spread = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    return float((first.mean() - second.mean()) / max(spread, np.finfo(float).tiny))


def probe_accuracy(positive: Array, negative: Array) -> float:
    """Cross-validated accuracy of a linear probe between the poles, 0 to 1.

    A sanity check, as published. It does not choose the layer, because it saturates at 1: the
    system prompts of the test folds also occur in the training folds.
    """
    width = positive.shape[-1]
    states = np.concatenate([positive.reshape(-1, width), negative.reshape(-1, width)])
    labels = np.repeat([1, 0], len(states) // 2)
    folds = StratifiedKFold(_PROBE_FOLDS, shuffle=True, random_state=_PROBE_SEED)
    probe = LogisticRegression(C=1.0, max_iter=1000)
    return float(cross_val_score(probe, states.astype(np.float64), labels, cv=folds).mean())


def _mean(states: Array) -> Array:
    mean: Array = states.mean(axis=(0, 1), dtype=np.float64)
    return mean
