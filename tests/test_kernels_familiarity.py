"""The distance of familiarity in C: against the oracle, its properties, and its faults."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array
from tests import tolerances
from tests.reference import familiarity as reference
from tests.tiny import LAYERS, WIDTH, params_of

CALIBRATED = {
    "threshold": np.array(1.0),
    "clean_scores": np.arange(3.0),
    "target_fpr": np.array(0.1),
    "fpr_interval": np.array([0.0, 1.0]),
}


def make(width: int, centres: int, rank: int, seed: int = 0) -> dict[str, Array]:
    """Parameters of any size; directions as a fit gives them, orthogonal and shorter than 1."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0][: min(rank, width)]
    lengths = rng.uniform(0.2, 0.999, (len(basis), 1))
    return {
        "layer": np.array(1, np.int32),
        "centres": rng.normal(size=(centres, width)).astype(np.float32),
        "scale": rng.uniform(0.1, 3, width).astype(np.float32),
        "directions": (basis * lengths).astype(np.float32),
        **CALIBRATED,
    }


def distances(params: dict[str, Array], states: Array) -> Array:
    """Scores of rows (rows, width) by the kernel."""
    layers = [np.zeros_like(states), states]
    return np.array([r.score for r in REGISTRY["familiarity"].bind(params).score_pooled(layers)])


@pytest.mark.parametrize("width", [1, 7, 8, 9, 63, 64, 65])
@pytest.mark.parametrize(("centres", "rank"), [(1, 0), (1, 3), (4, 8)])
def test_it_is_the_oracles_distance(width: int, centres: int, rank: int) -> None:
    """For sizes around the lanes, with several centres and without directions."""
    params = make(width, centres, rank)
    states = np.random.default_rng(1).normal(size=(9, width)).astype(np.float32)
    frozen = [params[name] for name in ("centres", "scale", "directions")]
    expected = reference.scores(states, *frozen)
    c, s, d = (np.asarray(item, np.float64) for item in frozen)
    z = (states[:, None].astype(np.float64) - c) / s
    allowed = tolerances.familiarity(z, d).max(axis=1)
    assert np.all(np.abs(distances(params, states) ** 2 - expected**2) <= 2 * allowed)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.1, 50))
def test_it_is_a_distance(width: int, seed: int, times: float) -> None:
    """0 at a centre, proportional along a ray, and never below the distance to one centre more."""
    params = make(width, 1, 4, seed % 1000)
    rng = np.random.default_rng(seed)
    centre = params["centres"][0]
    step = rng.normal(size=width)
    states = np.stack([centre, centre + step, centre + times * step]).astype(np.float32)
    at, near, far = distances(params, states)
    assert at == 0
    assert far == pytest.approx(times * near, rel=1e-3, abs=1e-3)
    more = params | {"centres": np.stack([centre, states[1]])}
    assert np.all(distances(more, states) <= [at, near, far])


def test_a_state_that_is_not_finite_is_invalid() -> None:
    """With one centre or several; the other rows are scored."""
    for centres in (1, 3):
        for value in (np.nan, np.inf, -np.inf):
            states = np.zeros((2, 8), np.float32)
            states[0, 3] = value
            found = distances(make(8, centres, 2), states)
            assert not np.isfinite(found[0])
            assert np.isfinite(found[1])


def test_the_evidence_is_the_nearest_centre() -> None:
    """Its number, with the distance, at the layer that is read."""
    params = make(8, 3, 2)
    state = params["centres"][2:] + np.float32(0.01)
    (reading,) = REGISTRY["familiarity"].bind(params).score_pooled([state] * (LAYERS + 1))
    (item,) = reading.evidence
    assert (item.layer, item.measure) == (1, "distance to centre 2")
    assert item.value == reading.score


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": np.array(-1, np.int32)}, "familiarity/layer is -1; expected the index"),
        ({"layer": np.array(LAYERS + 1, np.int32)}, f"familiarity/layer is {LAYERS + 1}"),
        ({"scale": np.zeros(WIDTH, np.float32)}, "familiarity/scale"),
        ({"centres": np.zeros((0, WIDTH), np.float32)}, "familiarity/centres"),
        ({"directions": np.zeros((2, WIDTH + 1), np.float32)}, "familiarity/directions"),
        ({"centres": np.full((1, WIDTH), np.nan, np.float32)}, "familiarity/centres"),
    ],
)
def test_unfit_parameters_are_named(change: dict[str, Any], said: str) -> None:
    """Each with what was found."""
    (fault, *_) = REGISTRY["familiarity"].faults(params_of("familiarity") | change, LAYERS, WIDTH)
    assert said in fault
    if "layer" not in change or change["layer"] < 0:
        with pytest.raises(InputError):
            REGISTRY["familiarity"].bind(params_of("familiarity") | change)
