"""Metrics of a detector on labelled rows; None if the rows do not define the metric.

A non-finite score fails closed: it ranks above every finite score, on clean and on harmful rows.
The runtime also flags an invalid reading at any threshold.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from layerguard.calibration.thresholds.text_scores import failing_closed
from layerguard.runtime.types import Array

LOW_FPR = 0.01
"""False-positive rate at which the recall of detectors is compared."""


def macro_f1(labels: Array, flagged: Array) -> float | None:
    """Mean of the F1 of both classes; None if the rows have one class only.

    Args:
        labels: int [n], 1 is harmful.
        flagged: bool [n].
    """
    if not _both(labels):
        return None
    return float(f1_score(labels, flagged, average="macro", zero_division=0.0))


def auroc(labels: Array, scores: Array) -> float | None:
    """Probability that a harmful row scores above a clean one, ties half; None for one class.

    Args:
        labels: int [n], 1 is harmful.
        scores: float64 [n], larger is worse; a non-finite score is the worst.
    """
    return float(roc_auc_score(labels, rankdata(failing_closed(scores)))) if _both(labels) else None


def recall_at_low_fpr(labels: Array, scores: Array) -> float | None:
    """Largest share of harmful rows above a threshold that flags at most 1 % of clean rows.

    The threshold is chosen on the same rows: the value compares detectors and promises no rate.
    """
    if not _both(labels):
        return None
    fpr, tpr, _ = roc_curve(labels, rankdata(failing_closed(scores)))
    return float(tpr[fpr <= LOW_FPR].max())


def share_flagged(labels: Array, flagged: Array, label: int) -> float | None:
    """Flagged share of the rows of one label: realised FPR for label 0, detection for label 1."""
    label_flags = flagged[labels == label]
    return float(label_flags.mean()) if len(label_flags) else None


def _both(labels: Array) -> bool:
    return len(np.unique(labels)) > 1
