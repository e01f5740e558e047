"""Curves and areas against scikit-learn, and the interval of AUROC against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from layerguard.calibration.evaluation.metrics import recall_at_low_fpr
from layerguard.calibration.evaluation.ranking import auroc_interval, rank
from layerguard.runtime.types import Array


def _sample(seed: int, n: int, *, ties: bool = False) -> tuple[Array, Array]:
    """Labels and scores; harmful rows score higher by one."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores) if ties else scores


@given(seed=st.integers(0, 999), n=st.integers(4, 200), ties=st.booleans())
def test_areas_are_those_of_scikit_learn(seed: int, n: int, ties: bool) -> None:
    """The areas under the drawn curves are AUROC and average precision, with ties too."""
    labels, scores = _sample(seed, n, ties=ties)
    found = rank("x", labels, scores)
    assert found is not None
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert auc(*found.roc) == pytest.approx(found.auroc)
    assert found.average_precision == pytest.approx(average_precision_score(labels, scores))
    recall, precision = found.precision_recall
    assert np.trapezoid(precision, recall) == pytest.approx(found.average_precision)
    assert (np.diff(recall) >= 0).all()
    assert found.recall[0] == recall_at_low_fpr(labels, scores)
    assert found.recall[0] <= found.recall[1]


def test_the_interval_is_delongs() -> None:
    """Its variance is that of the two sets of placement values, computed pair by pair."""
    labels, scores = _sample(5, 90, ties=True)
    harmful, clean = scores[labels == 1], scores[labels == 0]
    wins = (harmful[:, None] > clean) + 0.5 * (harmful[:, None] == clean)
    variance = wins.mean(axis=1).var(ddof=1) / len(harmful)
    variance += wins.mean(axis=0).var(ddof=1) / len(clean)
    area = wins.mean()
    margin = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    expected = [1 / (1 + math.exp(-(centre + side * margin))) for side in (-1, 1)]
    assert auroc_interval(labels, scores) == pytest.approx(tuple(expected), rel=1e-6)


def test_the_interval_holds_the_true_area_as_often_as_it_says() -> None:
    """Of 400 samples about 95 % have an interval with the area of the distributions."""
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))  # P(N(1, 1) > N(0, 1))
    intervals = [auroc_interval(*_sample(seed, 120)) for seed in range(400)]
    held = [low <= truth <= high for low, high in filter(None, intervals)]
    assert 0.92 <= np.mean(held) <= 0.98


def test_an_order_without_errors_has_no_interval() -> None:
    """Nothing is known of the spread."""
    labels = np.array([0, 0, 1, 1])
    assert auroc_interval(labels, np.array([1.0, 2.0, 3.0, 4.0])) is None
    assert auroc_interval(labels[:3], np.array([1.0, 3.0, 2.0])) is None


def test_one_label_has_no_ranking() -> None:
    """There is nothing to compare with."""
    assert rank("x", np.zeros(5, np.int64), np.arange(5.0)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_the_worst(value: float) -> None:
    """On a harmful row it is found first."""
    found = rank("x", np.array([0, 0, 1, 1]), np.array([0.1, 0.2, value, 0.3]))
    assert found is not None
    assert found.auroc == 1.0
