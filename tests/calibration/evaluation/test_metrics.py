"""Metrics against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.evaluation import metrics
from layerguard.calibration.evaluation.results import above, metrics_of_decisions, metrics_of_scores
from layerguard.calibration.thresholds.text_scores import worst_windows

LABELS = np.array([0, 0, 0, 0, 1, 1])


def test_macro_f1_by_hand() -> None:
    """Clean: precision 3/4, recall 3/4; harmful: 1/2 and 1/2."""
    flagged = np.array([False, False, False, True, True, False])
    assert metrics.macro_f1(LABELS, flagged) == pytest.approx((0.75 + 0.5) / 2)


@given(seed=st.integers(0, 999), n=st.integers(2, 60))
def test_auroc_counts_pairs(seed: int, n: int) -> None:
    """AUROC is the share of (harmful, clean) pairs in the right order, with ties counted half."""
    rng = np.random.default_rng(seed)
    labels, scores = np.arange(n) % 2, rng.integers(0, 5, n).astype(np.float64)
    harmful, clean = scores[labels == 1][:, None], scores[labels == 0][None, :]
    expected = np.mean((harmful > clean) + 0.5 * (harmful == clean))
    assert metrics.auroc(labels, scores) == pytest.approx(expected)


@given(seed=st.integers(0, 999))
def test_recall_at_low_fpr_is_the_best_threshold_that_keeps_it(seed: int) -> None:
    """Recall at a low false-positive rate equals a brute-force search over all thresholds."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(300) % 3 == 0).astype(np.int64)
    scores = rng.normal(size=300) + labels
    allowed = [
        np.mean(scores[labels == 1] > limit)
        for limit in [-np.inf, *scores]
        if np.mean(scores[labels == 0] > limit) <= metrics.LOW_FPR
    ]
    assert metrics.recall_at_low_fpr(labels, scores) == pytest.approx(max(allowed))


def test_an_invalid_reading_is_the_worst_score() -> None:
    """Infinity ranks above all finite scores and breaks nothing."""
    scores = np.array([0.1, 0.2, 0.3, 0.4, math.inf, 0.5])
    assert metrics.auroc(LABELS, scores) == 1.0
    assert metrics.recall_at_low_fpr(LABELS, scores) == 1.0


@pytest.mark.parametrize("label", [0, 1])
def test_figures_that_one_class_cannot_define_are_none(label: int) -> None:
    """With one class, only the flagged share of that class is defined."""
    labels = np.full(4, label)
    found = metrics_of_scores(
        "x", labels, np.array([0.1, 0.9, 0.8, 0.7]), np.full(4, 0.75), probability=True
    )
    assert found.macro_f1 is found.macro_f1_at_half is found.auroc is None
    assert found.recall_at_1_percent_fpr is None
    assert (found.realised_fpr, found.detection) == ((0.5, None) if label == 0 else (None, 0.5))


def test_a_score_that_is_no_number_is_flagged() -> None:
    """NaN fails closed in the metrics as in the guard."""
    scores = np.array([0.1, math.nan, 0.1, 0.1, 0.9, math.nan])
    found = metrics_of_decisions("x", LABELS, ~(scores <= 0.5))
    assert (found.realised_fpr, found.detection) == (0.25, 1.0)


def test_a_baseline_has_no_operating_threshold() -> None:
    """Metrics that need a threshold are None for a baseline."""
    found = metrics_of_scores("x", LABELS, np.linspace(0, 1, 6), None, probability=True)
    assert found.macro_f1 is found.realised_fpr is found.detection is None
    assert found.auroc == 1.0
    assert found.macro_f1_at_half is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("row", "auroc", "recall", "fpr", "detection"), [
    (5, 1.0, 1.0, 0.0, 1.0),  # harmful: found, as the guard stops it
    (0, 0.75, 0.0, 0.25, 0.5),  # clean: a false alarm, above both harmful rows
])  # fmt: skip
def test_a_score_that_is_not_finite_fails_closed(
    value: float, row: int, auroc: float, recall: float, fpr: float, detection: float
) -> None:
    """A non-finite score is the worst score in ranks, thresholds and shares."""
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.45])
    scores[row] = value
    assert above(scores, 0.5).tolist() == [i in (row, 4) for i in range(6)]
    found = metrics_of_scores("x", LABELS, scores, np.full(6, 0.5), probability=True)
    assert (found.auroc, found.recall_at_1_percent_fpr) == (auroc, recall)
    assert (found.realised_fpr, found.detection) == (fpr, detection)
    assert found.macro_f1_at_half == found.macro_f1 == metrics.macro_f1(LABELS, above(scores, 0.5))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_window_that_is_not_finite_decides_for_its_row(value: float) -> None:
    """A row has the score of its largest window; a non-finite window is the largest."""
    scores = np.array([0.3, 0.1, value, 0.2, 0.7])
    assert worst_windows(scores, np.array([0, 0, 1, 1, 2]), 3).tolist() == [0.3, math.inf, 0.7]
