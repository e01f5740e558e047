"""Figures of merit of a detector on labelled rows; None where a file cannot define one.

A score that is not finite fails closed, as the runtime flags an invalid reading whatever the
threshold: it ranks above every finite score, on clean and on harmful rows alike.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from layerguard.runtime.types import Array

LOW_FPR = 0.01
"""Where recall is compared between detectors."""


def macro_f1(labels: Array, flagged: Array) -> float | None:
    """Mean of the F1 of both classes; None where the rows have one class only.

    Args:
        labels: int [n], 1 is harmful.
        flagged: bool [n].
    """
    if not _both(labels):
        return None
    return float(f1_score(labels, flagged, average="macro", zero_division=0.0))


def auroc(labels: Array, scores: Array) -> float | None:
    """Chance that a harmful row scores above a clean one, ties half; None with one class only.

    Args:
        labels: int [n], 1 is harmful.
        scores: float64 [n], larger is worse; one that is not finite is the worst.
    """
    return float(roc_auc_score(labels, rankdata(failing_closed(scores)))) if _both(labels) else None


def recall_at_low_fpr(labels: Array, scores: Array) -> float | None:
    """Largest share of harmful rows found by a threshold that flags at most 1 % of clean ones.

    The threshold is chosen on these very rows: it compares detectors, and promises nothing.
    """
    if not _both(labels):
        return None
    fpr, tpr, _ = roc_curve(labels, rankdata(failing_closed(scores)))
    return float(tpr[fpr <= LOW_FPR].max())


def failing_closed(scores: Array) -> Array:
    """The scores with infinity, which is above every threshold, for each that is not finite."""
    worst: Array = np.where(np.isfinite(scores), scores, np.inf)
    return worst


def share_flagged(labels: Array, flagged: Array, label: int) -> float | None:
    """Share of the rows of one label that is flagged: the realised FPR for 0, detection for 1."""
    of_label = flagged[labels == label]
    return float(of_label.mean()) if len(of_label) else None


def _both(labels: Array) -> bool:
    return len(np.unique(labels)) > 1
