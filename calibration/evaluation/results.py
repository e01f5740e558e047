"""The metrics of one method on one file of labelled rows."""

from dataclasses import dataclass, replace

from layerguard.calibration.evaluation import metrics
from layerguard.calibration.thresholds.text_scores import failing_closed
from layerguard.runtime.types import Array

HALF = 0.5
"""The threshold at which macro-F1 is published for scores that are probabilities."""


@dataclass(frozen=True, slots=True)
class MethodMetrics:
    """The metrics of one method on one file; None if the method or file does not define one.

    Attributes:
        method: a detector's name, ``guard`` for all detectors together, or a baseline's name.
        macro_f1: at the operating threshold, which baselines do not have.
        macro_f1_at_half: at the threshold 0.5, for scores that are probabilities.
        auroc: area under the ROC curve.
        recall_at_1_percent_fpr: recall at a threshold chosen on the same rows.
        realised_fpr: share of clean rows flagged at the operating threshold.
        detection: share of harmful rows flagged at the operating threshold.
    """

    method: str
    macro_f1: float | None = None
    macro_f1_at_half: float | None = None
    auroc: float | None = None
    recall_at_1_percent_fpr: float | None = None
    realised_fpr: float | None = None
    detection: float | None = None


@dataclass(frozen=True, slots=True)
class FileResult:
    """All methods on one file: ``n`` rows, of which ``positives`` have label 1."""

    file: str
    n: int
    positives: int
    figures: tuple[MethodMetrics, ...]


def metrics_of_decisions(method: str, labels: Array, flagged: Array) -> MethodMetrics:
    """The metrics that need only decisions, not scores.

    Args:
        method: name of the method.
        labels: int [n], 1 is harmful.
        flagged: bool [n], at the operating threshold.
    """
    return MethodMetrics(
        method=method,
        macro_f1=metrics.macro_f1(labels, flagged),
        realised_fpr=metrics.share_flagged(labels, flagged, 0),
        detection=metrics.share_flagged(labels, flagged, 1),
    )


def metrics_of_scores(
    method: str, labels: Array, scores: Array, thresholds: Array | None, *, probability: bool
) -> MethodMetrics:
    """All metrics of a method that gives scores.

    Args:
        method: name of the method.
        labels: int [n], 1 is harmful.
        scores: float64 [n], larger is worse.
        thresholds: operating threshold of each row, float64 [n]; None for a baseline.
        probability: whether scores are probabilities of harm.
    """
    metrics_at_threshold = MethodMetrics(method)
    if thresholds is not None:
        metrics_at_threshold = metrics_of_decisions(method, labels, above(scores, thresholds))
    return replace(
        metrics_at_threshold,
        macro_f1_at_half=metrics.macro_f1(labels, above(scores, HALF)) if probability else None,
        auroc=metrics.auroc(labels, scores),
        recall_at_1_percent_fpr=metrics.recall_at_low_fpr(labels, scores),
    )


def above(scores: Array, threshold: Array | float) -> Array:
    """Which scores are flagged, bool [n]; a non-finite score always is."""
    flagged: Array = ~(failing_closed(scores) <= threshold)
    return flagged
