"""How well scores order rows: ROC, precision and recall, and the areas under them.

A non-finite score fails closed: it ranks above every finite score.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from layerguard.calibration.evaluation.metrics import auroc
from layerguard.calibration.evaluation.rates import CONFIDENCE
from layerguard.calibration.thresholds.text_scores import failing_closed
from layerguard.runtime.types import Array

GUARD = "guard"
"""Name of the whole guard among the methods."""

COMPARED_FPR = (0.01, 0.05)
"""False-positive rates at which the recall of methods is compared."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How one method orders rows of both labels.

    Attributes:
        method: name of a detector, a baseline, or the guard.
        auroc: area under the ROC curve.
        auroc_interval: its 95 % interval; None if the two labels are ordered without an error, or
            a label has one row: nothing is then known of the spread.
        average_precision: area under the steps of precision over recall.
        recall: at thresholds that flag at most a share of ``COMPARED_FPR`` of these clean rows.
        roc: false-positive rate and recall, float64 [2, k], ascending.
        precision_recall: recall and precision, float64 [2, k], recall ascending, as steps.
    """

    method: str
    auroc: float
    auroc_interval: tuple[float, float] | None
    average_precision: float
    recall: tuple[float, ...]
    roc: Array
    precision_recall: Array


def rank(method: str, labels: Array, scores: Array) -> Ranking | None:
    """The ranking of a method; None if the rows have one label only.

    Args:
        method: name of the method.
        labels: int [n], 1 is harmful.
        scores: float64 [n], larger is worse.
    """
    area = auroc(labels, scores)
    if area is None:
        return None
    ranks = rankdata(failing_closed(scores))
    fpr, tpr, _ = roc_curve(labels, ranks)
    precision, recall, _ = precision_recall_curve(labels, ranks, drop_intermediate=True)
    return Ranking(
        method,
        auroc=area,
        auroc_interval=auroc_interval(labels, ranks),
        average_precision=float(average_precision_score(labels, ranks)),
        recall=tuple(float(tpr[fpr <= allowed].max()) for allowed in COMPARED_FPR),
        roc=np.stack([fpr, tpr]),
        precision_recall=_steps(recall[::-1], precision[::-1]),
    )


def auroc_interval(labels: Array, scores: Array) -> tuple[float, float] | None:
    """The 95 % interval of the AUROC, on the logit scale; None if its spread is unknown.

    The variance is that of DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or
    more correlated receiver operating characteristic curves", 1988: that of each row's share of
    rows of the other label that it is ordered correctly with. The logit keeps the interval within
    0 and 1: Pepe, "The Statistical Evaluation of Medical Tests", 2003, section 5.2.

    Args:
        labels: int [n], 1 is harmful; both labels occur.
        scores: float64 [n], finite, larger is worse.
    """
    harmful, clean = scores[labels == 1], scores[labels == 0]
    m, n = len(harmful), len(clean)
    ranks = rankdata(np.concatenate([harmful, clean]))
    of_harmful = (ranks[:m] - rankdata(harmful)) / n
    of_clean = 1 - (ranks[m:] - rankdata(clean)) / m
    area = float(of_harmful.mean())
    if min(m, n) < 2 or not 0 < area < 1:
        return None
    spread = np.sqrt(of_harmful.var(ddof=1) / m + of_clean.var(ddof=1) / n)
    margin = ndtri((1 + CONFIDENCE) / 2) * spread / (area * (1 - area))
    return float(expit(logit(area) - margin)), float(expit(logit(area) + margin))


def _steps(recall: Array, precision: Array) -> Array:
    """The corners of the steps: a recall between two points has the precision of the greater."""
    return np.stack([np.repeat(recall, 2)[1:-1], np.repeat(precision, 2)[2:]])
