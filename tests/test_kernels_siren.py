"""The SIREN kernel against its float64 oracle and the published golden vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tolerances
from tests.kernel_cases import DEPTH, WIDTHS, siren_model, states
from tests.reference import siren as reference
from tests.scorers import SirenKernel


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("hidden", [(), (1,), (4,), (33, 6), (64, 32, 8)])
def test_scores_agree_with_the_oracle(width: int, hidden: tuple[int, ...]) -> None:
    """Scores are within the rounding carried through the network's layers."""
    model, h = siren_model(width, hidden), states(width, 3)
    feature = reference.features(h, model.layers, model.chosen(), model.alpha)
    weights = [weight.astype(np.float64) for weight in model.weights]
    biases = [bias.astype(np.float64) for bias in model.biases]
    expected = reference.scores(reference.logits(feature, weights, biases))
    bound = tolerances.siren_score(tolerances.siren_logits(feature, weights, biases))
    assert (np.abs(model.kernel().score(h) - expected) <= bound).all()


@pytest.mark.shared
def test_golden_vectors(shared: Path) -> None:
    """The published features and scores are reproduced from the pooled states."""
    golden = json.loads((shared / "golden" / "siren_golden.json").read_text(encoding="utf-8"))
    pooled = np.asarray(golden["pooled"], np.float32)
    chosen = [golden["sel_layer1"], golden["sel_layer2"]]
    alpha = [golden["layer_alpha"]["1"], golden["layer_alpha"]["2"]]
    h = np.stack([np.zeros_like(pooled), pooled, pooled])
    features = reference.features(h, [1, 2], chosen, alpha)
    np.testing.assert_allclose(features, golden["feature"], rtol=tolerances.GOLDEN)
    kernel = SirenKernel(
        np.array([1, 2]),
        np.cumsum([0, *map(len, chosen)]),
        np.concatenate(chosen),
        alpha,
        [golden["W1"], golden["W2"]],
        [golden["b1"], golden["b2"]],
    )
    np.testing.assert_allclose(kernel.score(h), golden["score"], rtol=tolerances.GOLDEN)


@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_order_of_hidden_neurons_does_not_matter(
    width: int, seed: int, data: st.DataObject
) -> None:
    """Permuting a hidden layer with the weights on both of its sides keeps the score."""
    model, h = siren_model(width, (12,), seed=seed), states(width, 2, seed=seed)
    order = np.array(data.draw(st.permutations(range(12))))
    permuted = {
        **vars(model),
        "weights": (model.weights[0][order], model.weights[1][:, order]),
        "biases": (model.biases[0][order], model.biases[1]),
    }
    np.testing.assert_allclose(SirenKernel(**permuted).score(h), model.kernel().score(h), rtol=1e-5)


@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1))
def test_equal_logits_score_one_half_and_swapped_logits_the_rest(width: int, seed: int) -> None:
    """No weight in the last map gives exactly 0.5; exchanging the outputs gives 1 - score."""
    model, h = siren_model(width, seed=seed), states(width, 2, seed=seed)
    *weights, last = model.weights
    *biases, bias = model.biases
    flat = {
        **vars(model),
        "weights": (*weights, np.zeros_like(last)),
        "biases": (*biases, np.zeros_like(bias)),
    }
    np.testing.assert_array_equal(SirenKernel(**flat).score(h), [0.5, 0.5])
    swapped = {**vars(model), "weights": (*weights, last[::-1]), "biases": (*biases, bias[::-1])}
    np.testing.assert_allclose(
        SirenKernel(**swapped).score(h), 1 - model.kernel().score(h), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_never_lost(value: float) -> None:
    """A bad value in a neuron that is read gives NaN, though ReLU would turn -inf into 0."""
    model = siren_model(33, (4,))
    shut = {**vars(model), "weights": (-np.abs(model.weights[0]), model.weights[1])}
    for parameters in (vars(model), shut):
        kernel = SirenKernel(**parameters)
        h = states(33, 3)
        h[1, 1, model.neurons[0]] = value
        scores = kernel.score(h)
        assert np.isnan(scores[1])
        assert np.isfinite(scores[[0, 2]]).all()


def test_overflow_inside_the_network_is_not_a_score() -> None:
    """Finite states whose sums leave float32 give NaN."""
    model, h = siren_model(33, (4,)), states(33, 1)
    large = {**vars(model), "weights": (model.weights[0] * 1e30, model.weights[1])}
    assert np.isnan(SirenKernel(**large).score(h * np.float32(1e30))).all()


def test_states_that_are_not_read_do_not_matter() -> None:
    """Layers and neurons that were not chosen may hold anything, and later layers may be absent."""
    model, h = siren_model(33), states(33, 2)
    expected = model.kernel().score(h)
    hidden = np.ones((DEPTH + 1, 33), bool)
    for layer, neurons in zip(model.layers, model.chosen(), strict=True):
        hidden[layer, neurons] = False
    h[hidden[:, None].repeat(2, axis=1)] = np.nan
    np.testing.assert_array_equal(model.kernel().score(h), expected)
    longer = np.concatenate([h, h[:1]])
    np.testing.assert_array_equal(model.kernel().score(longer), expected)
