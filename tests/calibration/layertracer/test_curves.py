"""The first rise of a target's probability, and the divergence of two outputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax as scipy_log_softmax

from layerguard.calibration.layertracer.curves import (
    Rise,
    first_rise_layer,
    log_softmax,
    max_ratio_layer,
    ratios,
)
from layerguard.calibration.layertracer.divergence import LN_2, js_divergence_nats, layer_robustness
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array
from tests.reference import trace as reference

LOGITS = arrays(np.float32, 9, elements=st.floats(-80, 80, width=32))
CURVE = st.lists(st.sampled_from([0.0, 1e-14, 1e-6, 0.004, 0.01, 0.02, 0.3, 1.0]), min_size=2)
PAIR = [LOGITS, LOGITS]


def particles(curve: list[float], rise: Rise | None = None) -> tuple[int, int | None]:
    """The layers of the largest ratio and of the first rise of a curve p_0 ... p_L."""
    rise = rise or Rise()
    probability = np.array(curve)
    ratio = ratios(probability, rise.floor)
    return max_ratio_layer(ratio), first_rise_layer(probability, ratio, rise)


@pytest.mark.parametrize(
    ("curve", "largest", "first"),
    [
        ([1e-6, 1e-6, 0.005, 0.02, 0.9], 2, 3),  # the largest ratio is still below 0.01
        ([0.1, 0.2, 0.4, 0.8], 1, 1),  # equals: the first
        ([0.5, 0.5, 0.5], 1, None),  # nothing rises
        ([0.0, 1e-13, 1e-12, 0.01], 3, 3),  # nothing below the floor is a ratio
        ([0.0, 0.0, 0.0], 1, None),
        ([0.9, 0.001, 0.0019, 0.0099], 3, None),  # it rises, and to too little
        ([0.006, 0.0119, 0.0238], 2, 2),  # just below twofold, then twofold
    ],
)
def test_particles_of_curves_made_by_hand(
    curve: list[float], largest: int, first: int | None
) -> None:
    """Ties go to the first layer; a significant rise reaches both bounds."""
    assert particles(curve) == (largest, first)


@given(CURVE, st.sampled_from([1e-12, 0.01]))
def test_particles_agree_with_the_definitions(curve: list[float], floor: float) -> None:
    """The layers agree with a loop over the definitions."""
    found = particles(curve, Rise(2.0, 0.01, floor))
    assert found[0] == reference.max_ratio_layer(curve, floor)
    assert found[1] == reference.first_rise_layer(curve, 2.0, 0.01, floor)


def test_a_floor_keeps_the_noise_of_early_layers_out() -> None:
    """A floor removes large ratios of tiny probabilities."""
    curve = [1e-9, 1e-6, 1e-6, 0.2, 0.9]
    assert particles(curve)[0] == 3
    assert particles([1e-12, 1e-6, 1e-6, 0.2, 0.9])[0] == 1
    assert particles([1e-12, 1e-6, 1e-6, 0.2, 0.9], Rise(floor=0.01))[0] == 3


@pytest.mark.parametrize(
    "wrong",
    [{"least_ratio": 0.0}, {"least_probability": 1.5}, {"floor": 0.0}, {"floor": math.nan},
     {"least_ratio": math.nan}],
)  # fmt: skip
def test_a_rise_that_no_probability_can_make_is_refused(wrong: dict[str, float]) -> None:
    """The message says what was found and what is expected."""
    with pytest.raises(InputError, match="expected a ratio above 0"):
        Rise(**wrong)


@given(LOGITS)
def test_log_softmax_is_scipys(logits: Array) -> None:
    """The result is float64 for every float dtype."""
    for dtype in (np.float16, np.float32):
        given_logits = np.clip(logits, -60, 60).astype(dtype)
        expected = scipy_log_softmax(given_logits.astype(np.float64))
        np.testing.assert_allclose(log_softmax(given_logits), expected, rtol=0, atol=1e-12)


@given(*PAIR)
def test_divergence_is_the_square_of_scipys_distance(left: Array, right: Array) -> None:
    """Agrees with SciPy within 1e-6, also near zero, and with the definition within rounding."""
    found = float(js_divergence_nats(log_softmax(left), log_softmax(right)))
    p, q = reference.softmax(left), reference.softmax(right)
    with np.errstate(invalid="ignore"):  # scipy's root of a rounded sum, a little below zero: NaN
        theirs = np.nan_to_num(jensenshannon(p, q)) ** 2
    assert found == pytest.approx(theirs, abs=1e-6)
    assert found == pytest.approx(reference.js_divergence_nats(p, q), abs=1e-12)


@given(*PAIR)
def test_divergence_is_symmetric_and_bounded(left: Array, right: Array) -> None:
    """The divergence is in [0, ln 2], symmetric, and invariant to a constant in the logits."""
    p, q = log_softmax(left), log_softmax(right)
    found = float(js_divergence_nats(p, q))
    assert 0 <= found <= LN_2
    assert found == pytest.approx(float(js_divergence_nats(q, p)), abs=1e-14)
    assert float(js_divergence_nats(p, p)) == pytest.approx(0, abs=1e-14)
    moved = log_softmax(left.astype(np.float64) + 3)
    assert float(js_divergence_nats(moved, q)) == pytest.approx(found, abs=1e-12)


def test_divergence_of_outputs_that_share_nothing_is_ln_2() -> None:
    """Also checks one certain token out of two against the formula."""
    apart = log_softmax(np.array([[0.0, -1e4], [-1e4, 0.0]]))
    assert float(js_divergence_nats(apart[0], apart[1])) == pytest.approx(LN_2, abs=1e-15)
    even = log_softmax(np.zeros(2))
    expected = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    assert float(js_divergence_nats(apart[0], even)) == pytest.approx(expected, abs=1e-15)


def test_divergence_takes_all_masked_layers_at_once() -> None:
    """One row against many rows gives the value of each pair."""
    rng = np.random.default_rng(0)
    whole, masked = log_softmax(rng.normal(size=50)), log_softmax(rng.normal(size=(4, 50)))
    each = [float(js_divergence_nats(whole, row)) for row in masked]
    np.testing.assert_array_equal(js_divergence_nats(whole, masked), each)


def test_robustness_is_one_where_no_mask_matters_and_zero_where_each_takes_all() -> None:
    """Between one and zero, the robustness is linear in the mean divergence."""
    assert layer_robustness(np.zeros(4)) == 1
    assert layer_robustness(np.full(4, LN_2)) == 0
    assert layer_robustness(np.array([LN_2, 0])) == pytest.approx(0.5)
