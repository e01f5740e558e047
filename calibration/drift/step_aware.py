"""Fit the step-aware alarm for long runs; ``runtime/drift/step_aware.py`` evaluates it."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from layerguard.calibration.drift.runs import Checkpoint
from layerguard.runtime.drift.step_aware import step_features
from layerguard.runtime.types import Array


def fit_step_aware(drift: Array, runs: Sequence[Checkpoint], tau: float) -> dict[str, Array]:
    """Fit the alarm's parameters to checkpoints that ``runs.check_support`` accepted.

    Args:
        drift: float64 [n, traits].
        runs: the n checkpoints, with a long run that stays benign.
        tau: threshold on misalignment; the alarm learns which checkpoints are above it.

    Returns:
        step_component float64 [traits], the first principal component of the runs' final drifts;
        step_mean, step_scale, step_coefficients float64 [3]; step_intercept float64.

    Source: arXiv 2606.07631 version 2, step-aware alarm: standardised logistic regression.
    """
    steps = np.array([row.step for row in runs])
    component = principal_component(drift[_final(runs)])
    features = step_features(drift, steps, component)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(max_iter=2000, random_state=42)
    model.fit(scaler.transform(features), [row.misalignment > tau for row in runs])
    return {
        "step_component": component,
        "step_mean": scaler.mean_.astype(np.float64),
        "step_scale": scaler.scale_.astype(np.float64),
        "step_coefficients": model.coef_[0].astype(np.float64),
        "step_intercept": np.array(model.intercept_[0], dtype=np.float64),
    }


def principal_component(vectors: Array) -> Array:
    """First principal component of centred rows, float64, unit length; largest entry positive.

    The sign has no meaning, because the alarm uses lengths along the component.
    """
    component: Array = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][0]
    component *= np.sign(component[np.argmax(np.abs(component))])
    return component


def _final(runs: Sequence[Checkpoint]) -> list[int]:
    """The index of each run's last checkpoint."""
    last: dict[str, int] = {}
    for number, row in enumerate(runs):
        if row.step >= runs[last.setdefault(row.run, number)].step:
            last[row.run] = number
    return list(last.values())
