"""Choose the regressor that best predicts held-out perturbations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerguard.calibration.drift.regressors import REGRESSORS
from layerguard.calibration.drift.runs import Checkpoint
from layerguard.calibration.evaluation.metrics import auroc, share_flagged
from layerguard.runtime.drift.manifest import Candidate, RegressorName
from layerguard.runtime.types import Array


def held_out_predictions(drift: Array, runs: Sequence[Checkpoint], name: RegressorName) -> Array:
    """Predict each checkpoint with a fit to all other perturbations, float64 [n], not clipped.

    Args:
        drift: float64 [n, traits].
        runs: the n checkpoints.
        name: name of the regressor.
    """
    perturbations = np.array([row.perturbation for row in runs])
    rates = np.array([row.misalignment for row in runs])
    predicted = np.empty(len(runs))
    for perturbation in np.unique(perturbations):
        held_out = perturbations == perturbation
        model = REGRESSORS[name]().fit(drift[~held_out], rates[~held_out])
        predicted[held_out] = model.predict(drift[held_out])
    return predicted


def leave_one_perturbation_out(
    drift: Array, runs: Sequence[Checkpoint], tau: float
) -> tuple[Candidate, ...]:
    """The metrics of every regressor over all held-out predictions, at the threshold ``tau``.

    ``runs.check_support`` must have accepted the runs: some are above ``tau``, and some are not.
    """
    labels = np.array([row.misalignment > tau for row in runs]).astype(np.int64)
    candidates = []
    for name in REGRESSORS:
        predicted = held_out_predictions(drift, runs, name)
        alarm = ~(predicted <= tau)
        area = auroc(labels, predicted)
        detected, false_positives = (share_flagged(labels, alarm, label) for label in (1, 0))
        assert area is not None
        assert detected is not None
        assert false_positives is not None
        candidates.append(
            Candidate(
                regressor=name,
                balanced_accuracy=(detected + 1 - false_positives) / 2,
                auroc=area,
                false_negative_rate=1 - detected,
                false_positive_rate=false_positives,
            )
        )
    return tuple(candidates)


def fit_best(
    drift: Array, runs: Sequence[Checkpoint], candidates: Sequence[Candidate]
) -> tuple[RegressorName, Any]:
    """Fit the regressor with the highest balanced accuracy, then AUROC, to all checkpoints."""
    best = max(candidates, key=lambda c: (c.balanced_accuracy, c.auroc))  # ties go to the first
    model = REGRESSORS[best.regressor]()
    return best.regressor, model.fit(drift, np.array([row.misalignment for row in runs]))
