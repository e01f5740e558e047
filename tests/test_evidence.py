"""What moved a score: C's evidence against the textbook formulas in float64."""

import itertools
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import kernels
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import Scorer, parameters
from layerguard.runtime.types import ROLES, Array
from tests import tiny
from tests.kernel_cases import levels
from tests.random_detectors import make_params
from tests.scorers import CALIBRATED, scored

LAYERS, WIDTH, ROWS = 6, 33, 5


def params_of(name: str, threshold: float) -> dict[str, Array]:
    """Random parameters that flag above ``threshold``."""
    return make_params(LAYERS, WIDTH)[name] | CALIBRATED | {"threshold": np.array(threshold)}


def states(seed: int = 0) -> Array:
    """Pooled states, float32 [L + 1, rows, width]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(LAYERS + 1, ROWS, WIDTH)).astype(np.float32)


def shares(params: dict[str, Array], row: Array) -> list[float]:
    """Input times gradient of the logit difference by layer that is read, float64."""
    ends = params["neuron_offsets"]
    parts = [
        np.float64(alpha) * row[layer][params["neurons"][start:stop]].astype(np.float64)
        for layer, alpha, start, stop in zip(
            params["layers"], params["alpha"], ends, ends[1:], strict=False
        )
    ]
    features = np.concatenate(parts)
    weights = [params[f"weight_{i}"].astype(np.float64) for i in range(2)]
    hidden = weights[0] @ features + params["bias_0"]
    gradient = ((weights[1][1] - weights[1][0]) * (hidden > 0)) @ weights[0]
    moved = features * gradient
    return [float(moved[start:stop].sum()) for start, stop in itertools.pairwise(ends)]


def test_siren_tells_each_layers_share_of_the_logit() -> None:
    """Input times gradient, the largest first; they and the biases make the logit difference."""
    params, h = params_of("siren", -1.0), states()
    _, evidence = scored(Scorer("siren", params, extremes=False), h, LAYERS)
    for row in range(ROWS):
        expected = shares(params, h[:, row])
        found = evidence[row]
        np.testing.assert_allclose(found["value"], np.array(expected)[found["place"]], atol=1e-5)
        assert (np.diff(np.abs(found["value"])) <= 0).all()
        assert found["layer"].tolist() == params["layers"][found["place"]].tolist()


def test_siren_of_one_map_and_of_three() -> None:
    """A readout's gradient is its weights; of deeper networks the shares add up to the logits."""
    params, h = params_of("siren", -1.0), states()
    rng = np.random.default_rng(3)
    inputs = params["weight_0"].shape[1]
    sizes: tuple[tuple[int, ...], ...] = ((inputs, 2), (inputs, 7, 5, 2))
    for widths in sizes:
        network = {k: v for k, v in params.items() if not k.startswith(("weight_", "bias_"))}
        for m, (before, after) in enumerate(itertools.pairwise(widths)):
            network[f"weight_{m}"] = (rng.normal(size=(after, before)) / before**0.5).astype("f4")
            network[f"bias_{m}"] = np.zeros(after, np.float32)
        readings, evidence = scored(Scorer("siren", network, extremes=False), h, LAYERS)
        logits = np.log(readings["score"] / (1 - readings["score"]))
        np.testing.assert_allclose(evidence["value"].sum(axis=1), logits, atol=1e-4)


def test_siren_explains_what_is_flagged_alone() -> None:
    """Nothing of a text that passes, nor of one whose score is not finite."""
    h = states()
    h[:, 1] = np.nan
    _, evidence = scored(Scorer("siren", params_of("siren", 1.0), extremes=False), h, 2)
    assert (evidence["layer"] == -1).all()
    readings, evidence = scored(Scorer("siren", params_of("siren", -1.0), extremes=False), h, 2)
    assert readings["flagged"].all()
    assert (evidence["layer"][:, 0] == -1).tolist() == [False, True, False, False, False]


def test_lcf_puts_what_is_not_a_number_first() -> None:
    """The layers that a state which is not finite spoiled, in their order, then the largest z."""
    h = states()
    h[3, 2, 0] = np.nan
    _, evidence = scored(Scorer("lcf", params_of("lcf", 0.0), extremes=False), h, LAYERS)
    assert evidence["layer"][2, :2].tolist() == [3, 4]
    assert np.isnan(evidence["value"][2, :2]).all()
    rest = np.abs(evidence["value"][2, 2:])
    assert (np.diff(rest) <= 0).all()


def test_weightwatch_lists_what_lies_outside() -> None:
    """The directions of every role with an excess above 0, the largest first."""
    params = params_of("weightwatch", 0.5)
    rng = np.random.default_rng(5)
    count = len(params["layers"])
    extremes = np.sort(rng.normal(size=(ROWS, len(ROLES), 2, count)) / 6, axis=2).astype("f4")
    readings, evidence = scored(Scorer("weightwatch", params, extremes=True), [extremes], 7)
    low, high, scale = (params[name].astype(np.float64) for name in ("low", "high", "scale"))
    for row in range(ROWS):
        excess = np.maximum(low - extremes[row, :, 0], extremes[row, :, 1] - high) / scale
        order = np.argsort(-excess, axis=None, kind="stable")[:7]
        assert evidence["place"][row].tolist() == order.tolist()
        assert evidence["value"][row].tobytes() == excess.flat[order].tobytes()
        assert readings["score"][row] == excess.max()


@pytest.mark.parametrize("name", ["lcf", "siren"])
def test_every_level_gives_the_same_evidence(name: str) -> None:
    """To the bit, as of scores."""
    scorer, h = Scorer(name, params_of(name, -1.0), extremes=False), states()
    found = set()
    try:
        for level in levels():
            kernels.set_level(level)
            found.add(scored(scorer, h, LAYERS)[1].tobytes())
    finally:
        kernels.set_level(None)
    assert len(found) == 1


def test_p_values_count_clean_scores_that_are_as_large() -> None:
    """Conformal: (1 + those at least as large) / (n + 1), the smallest where nothing is finite."""
    h = states()
    params = params_of("lcf", 3.0)
    scores = scored(Scorer("lcf", params, extremes=False), h, 0)[0]["score"]
    h[:, 4] = np.inf
    clean = np.sort(scores[:3])
    readings = scored(Scorer("lcf", params | {"clean_scores": clean}, extremes=False), h, 0)[0]
    expected = [(1 + (clean >= score).sum()) / 4 for score in scores[:4]]
    assert readings["p_value"].tolist() == [*expected, 0.25]
    assert readings["flagged"].tolist() == [*(scores[:4] > 3.0).astype(int), 1]
    assert readings["status"].tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("name", REGISTRY)
def test_the_table_names_what_fit_returns(name: str) -> None:
    """Names and dtypes of the arrays that tests freeze are those that C declares."""
    others = {name: tiny.params_of(name) for name in ("delta", "familiarity")}
    made: Any = {**others, **make_params(LAYERS, WIDTH)}
    params = made[name.removeprefix("agent_")]
    declared = parameters(name)
    for item in declared:
        assert params[item.name.replace("#", "0")].dtype.name in item.dtypes
        assert params[item.name.replace("#", "0")].ndim == len(item.sides)
    names = {item.name.replace("#", "0") for item in declared}
    assert {key for key in params if not key.endswith("_1")} == names


def test_a_detector_that_c_does_not_know_is_named() -> None:
    """Its table cannot be read, and its parameters are not fit."""
    with pytest.raises(InputError, match="the parameters of oracle"):
        parameters("oracle")
