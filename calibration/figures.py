"""What is reported about one method on one file of labelled rows."""

from dataclasses import dataclass, replace

from layerguard.calibration import metrics
from layerguard.runtime.types import Array

HALF = 0.5
"""The threshold at which macro-F1 is published for scores that are probabilities."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One method on one file; None where the method or the file cannot define a figure.

    Attributes:
        method: a detector's name, ``guard`` for all of them together, or a baseline.
        macro_f1: at the operating threshold, which baselines do not have.
        macro_f1_at_half: of scores that are probabilities, at 0.5.
        auroc: area under the ROC curve.
        recall_at_1_percent_fpr: with the threshold chosen on these very rows.
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
    figures: tuple[Figures, ...]


def of_decisions(method: str, labels: Array, flagged: Array) -> Figures:
    """What decisions alone define.

    Args:
        method: its name.
        labels: int [n], 1 is harmful.
        flagged: bool [n], at the operating threshold.
    """
    return Figures(
        method=method,
        macro_f1=metrics.macro_f1(labels, flagged),
        realised_fpr=metrics.share_flagged(labels, flagged, 0),
        detection=metrics.share_flagged(labels, flagged, 1),
    )


def of_scores(
    method: str, labels: Array, scores: Array, limit: Array | None, *, probability: bool
) -> Figures:
    """All figures of a method that scores.

    Args:
        method: its name.
        labels: int [n], 1 is harmful.
        scores: float64 [n], larger is worse.
        limit: operating threshold of each row, float64 [n]; None for a method without one.
        probability: whether scores are probabilities of harm.
    """
    known = Figures(method)
    if limit is not None:
        known = of_decisions(method, labels, above(scores, limit))
    return replace(
        known,
        macro_f1_at_half=metrics.macro_f1(labels, above(scores, HALF)) if probability else None,
        auroc=metrics.auroc(labels, scores),
        recall_at_1_percent_fpr=metrics.recall_at_low_fpr(labels, scores),
    )


def above(scores: Array, limit: Array | float) -> Array:
    """Which scores are flagged, bool [n]; one that is not finite is."""
    flagged: Array = ~(metrics.failing_closed(scores) <= limit)
    return flagged
