"""SIREN's probes: selection, layer weights, features and standardisation."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.siren.probes import (
    LEAST_ALPHA,
    layer_weights,
    select,
    select_neurons,
    standardisation,
)
from tests.calibration.synthetic import labelled_states
from tests.tolerances import GOLDEN

WEIGHTS = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40)


@pytest.mark.shared
@pytest.mark.parametrize("eta", [0.6, 0.8, 0.9])
def test_golden_selection(shared: Path, eta: float) -> None:
    """The selection equals that of the authors' code, in its order."""
    golden = json.loads((shared / "golden" / "siren_golden.json").read_text(encoding="utf-8"))
    expected = golden[f"eta_{eta}".replace(".", "_")]
    assert select_neurons(np.array(golden["weights"], np.float32), eta).tolist() == expected


@pytest.mark.shared
def test_golden_layer_weights(shared: Path) -> None:
    """Alpha from the probes' F1, to 1e-5."""
    golden = json.loads((shared / "golden" / "siren_golden.json").read_text(encoding="utf-8"))
    found = layer_weights(list(golden["layer_f1"].values()))
    np.testing.assert_allclose(found, list(golden["layer_alpha"].values()), atol=GOLDEN)


@given(weights=WEIGHTS, eta=st.floats(0.01, 1.0))
def test_selection_is_the_shortest_that_holds_the_share(weights: list[float], eta: float) -> None:
    """The chosen neurons hold the share eta of the weight; without the last they do not."""
    size = np.abs(np.array(weights, dtype=np.float64))
    chosen = select_neurons(np.array(weights), eta)
    total = size.sum()
    assert len(set(chosen.tolist())) == len(chosen) >= 1
    assert size[chosen].sum() >= eta * total * (1 - 1e-12)
    assert size[chosen[:-1]].sum() < eta * total * (1 + 1e-12) or total == 0
    assert (np.diff(size[chosen]) <= 0).all()


@given(f1=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_layer_weights_lie_between_their_least_and_one(f1: list[float]) -> None:
    """The best layer has weight 1 unless all are equal; better layers never weigh less."""
    alpha = layer_weights(f1)
    assert ((alpha >= LEAST_ALPHA) & (alpha <= 1)).all()
    assert alpha.max() == (1.0 if len(set(f1)) > 1 else LEAST_ALPHA)
    assert (np.diff(alpha[np.argsort(f1)]) >= 0).all()


def test_selection_finds_the_dimensions_that_know() -> None:
    """Labels shift three of twelve dimensions, which come first in every layer."""
    states, labels = labelled_states(240, seed=0, shift=4.0)
    found = select(states, labels, np.arange(240), eta=0.9, seed=0)
    assert found.layers == (1, 2, 3)
    for neurons in found.neurons:
        assert set(neurons[:3].tolist()) == {0, 1, 2}
    assert min(found.f1) > 0.9


def test_features_are_weighted_neurons_side_by_side() -> None:
    """alpha_l x_l[neurons_l], layers ascending, neurons in the order of selection."""
    states, labels = labelled_states(120, seed=1)
    found = select(states, labels, np.arange(120), eta=0.6, seed=0)
    features = found.features(states)
    column = 0
    for layer, neurons, alpha in zip(found.layers, found.neurons, found.alpha, strict=True):
        for neuron in neurons:
            assert (features[:, column] == alpha * states[:, layer, neuron]).all()
            column += 1
    assert features.shape == (120, column)
    assert features.dtype == np.float32


def test_standardisation_keeps_a_constant_column_small() -> None:
    """A column without spread is divided by a floor, not by zero."""
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x[:, 1] = 7.0
    mean, deviation = standardisation(x)
    assert (deviation > 0).all()
    assert np.abs((x[:, 1] - mean[1]) / deviation[1]).max() < 1e-3
    mean, deviation = standardisation(np.full((50, 3), 2.0, dtype=np.float32))
    assert deviation.tolist() == [1.0, 1.0, 1.0]
