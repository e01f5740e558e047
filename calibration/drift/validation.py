"""Choose the regressor that best predicts held-out perturbations, and refuse one that does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from layerguard.calibration.drift.regressors import REGRESSORS
from layerguard.calibration.drift.runs import Checkpoint
from layerguard.calibration.evaluation.metrics import auroc, share_flagged
from layerguard.runtime.drift.manifest import Candidate, RegressorName
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.types import Array

ERROR = 0.05
"""Probability that alarms without relation to misalignment pass, for the best of all regressors."""


@dataclass(frozen=True, slots=True)
class Validated:
    """One regressor on held-out perturbations.

    Attributes:
        candidate: its metrics, for the manifest.
        p_value: probability of alarms that fit the labels as well, or better, by chance.
    """

    candidate: Candidate
    p_value: float


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
) -> tuple[Validated, ...]:
    """Every regressor over all held-out predictions, at the threshold ``tau``.

    ``runs.check_support`` must have accepted the runs: some are above ``tau``, and some are not.
    Checkpoints with equal drift are one checkpoint for the p-value.
    """
    labels = np.array([row.misalignment > tau for row in runs]).astype(np.int64)
    distinct = np.unique(drift, axis=0, return_index=True)[1]
    validated = []
    for name in REGRESSORS:
        predicted = held_out_predictions(drift, runs, name)
        alarm = ~(predicted <= tau)
        area = auroc(labels, predicted)
        detected, false_positives = (share_flagged(labels, alarm, label) for label in (1, 0))
        assert area is not None
        assert detected is not None
        assert false_positives is not None
        candidate = Candidate(
            regressor=name,
            balanced_accuracy=(detected + 1 - false_positives) / 2,
            auroc=area,
            false_negative_rate=1 - detected,
            false_positive_rate=false_positives,
        )
        validated.append(Validated(candidate, _by_chance(labels[distinct], alarm[distinct])))
    return tuple(validated)


def fit_best(
    drift: Array, runs: Sequence[Checkpoint], validated: Sequence[Validated]
) -> tuple[RegressorName, Any]:
    """Fit the regressor with the highest balanced accuracy, then AUROC, to all checkpoints.

    Raises:
        CalibrationError: chance explains the alarms of that regressor.
    """
    best = max(  # ties go to the first
        validated, key=lambda one: (one.candidate.balanced_accuracy, one.candidate.auroc)
    )
    found, most = best.candidate, ERROR / len(validated)
    if best.p_value > most:
        raise CalibrationError(
            f"no regressor predicts held-out perturbations better than chance: the best, "
            f"{found.regressor}, has a balanced accuracy of {found.balanced_accuracy:.1%} and an "
            f"AUROC of {found.auroc:.3f} (p = {best.p_value:.2g}); expected p of at most "
            f"{most:.2g}. Add checkpoints of other runs and perturbations, or choose other traits "
            "or another --layer"
        )
    model = REGRESSORS[found.regressor]()
    return found.regressor, model.fit(drift, np.array([row.misalignment for row in runs]))


def _by_chance(labels: Array, alarm: Array) -> float:
    """Fisher's exact test of alarms above tau, against alarms that do not depend on the label."""
    table = [[int(np.sum(alarm[labels == label] == told)) for told in (1, 0)] for label in (1, 0)]
    return float(fisher_exact(table, alternative="greater").pvalue)
