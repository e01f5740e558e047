"""SIREN's network: an ensemble that is merged into one network for the kernel."""

import numpy as np
import pytest
from scipy.special import expit, logit

from layerguard.calibration.siren.network import MEMBERS, Committee, Head
from layerguard.runtime.types import Array
from tests.scorers import SirenKernel


@pytest.fixture(scope="module")
def features() -> Array:
    """Columns with very different offsets and spreads."""
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(150, 10)) * np.geomspace(0.1, 30, 10) + np.linspace(-20, 20, 10)
    found: Array = columns.astype(np.float32)
    return found


@pytest.fixture(scope="module")
def committee(features: Array) -> Committee:
    """A trained ensemble."""
    labels = (features[:, 3] > np.median(features[:, 3])).astype(np.int64)
    trained = Committee(features, labels, decay=0.01, seed=0)
    trained.learn(20)
    return trained


def test_one_network_answers_as_the_committee_does(features: Array, committee: Committee) -> None:
    """Its logit is the mean of the members', standardisation included."""
    standard = (features - committee._mean) / committee._deviation
    logits = [
        logit(member.predict_proba(standard.astype(np.float32))[:, 1].astype(np.float64))
        for member in committee._members
    ]
    assert len(logits) == MEMBERS
    found = committee.head().probability(features)
    np.testing.assert_allclose(found, expit(np.mean(logits, axis=0)), atol=1e-4)


def test_the_kernel_computes_the_same_probability(features: Array, committee: Committee) -> None:
    """The kernel gives the probability of the calibration."""
    head = committee.head()
    width = features.shape[1]
    kernel = SirenKernel(
        np.array([0], np.int32),
        np.array([0, width], np.int32),
        np.arange(width, dtype=np.int32),
        np.ones(1, np.float32),
        head.weights,
        head.biases,
    )
    np.testing.assert_allclose(kernel.score([features]), head.probability(features), atol=1e-4)


def test_it_learns_and_learns_the_same_again(features: Array, committee: Committee) -> None:
    """Training is far better than chance, and equal to the bit for equal seeds."""
    labels = (features[:, 3] > np.median(features[:, 3])).astype(np.int64)
    again = Committee(features, labels, decay=0.01, seed=0)
    again.learn(12)
    again.learn(8)
    for first, second in zip(committee.head().weights, again.head().weights, strict=True):
        assert first.tobytes() == second.tobytes()
    assert np.mean((committee.head().probability(features) > 0.5) == labels) > 0.9


def test_probability_is_the_softmax_of_two_logits() -> None:
    """Checked by hand with one active and one inactive hidden unit."""
    head = Head(
        weights=(np.array([[1.0], [-1.0]]), np.array([[0.0, 1.0], [2.0, 0.0]])),
        biases=(np.array([0.5, 0.0]), np.array([0.0, -1.0])),
    )
    safe, harmful = 0.0, 2.0 * 1.5 - 1.0
    expected = np.exp(harmful) / (np.exp(safe) + np.exp(harmful))
    assert head.probability(np.array([[1.0]]))[0] == pytest.approx(expected)
