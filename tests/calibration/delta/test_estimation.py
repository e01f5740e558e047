"""The fit of delta: centre, scale, held-out scores and threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerguard.calibration import delta
from layerguard.calibration.rows.folds import group_codes, random_folds
from layerguard.calibration.states.blockwise import ArrayStates, SelectedStates
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array
from tests.calibration.delta.values import clean_values, matrices
from tests.reference import delta_fit as oracle
from tests.tolerances import SLACK, U

ROWS = arrays(
    np.float32,
    st.tuples(st.integers(10, 22), st.integers(1, 5)),
    elements=st.floats(-14, 10, width=32),
).filter(lambda values: bool((np.ptp(values[1:], axis=0) > 0).any()))
"""Values of any prompts: ln 1e-6 is the least that the graph gives."""


def _agree(found: Array, expected: Array) -> None:
    """Equal up to one rounding to float32, in which two float64 results may differ."""
    assert (np.abs(found - expected) <= 2 * SLACK * U * np.abs(expected)).all()


def _scores(params: dict[str, Array], values: Array) -> Array:
    """The score of each row by the formula, in float64."""
    centre, scale = (params[name].astype(np.float64) for name in ("centre", "scale"))
    scores: Array = ((values - centre) / scale).max(axis=1)
    return scores


@given(ROWS)
def test_parameters_and_held_out_scores_are_those_of_the_oracle(values: Array) -> None:
    """Every score comes from a fit without the fold of the row."""
    k, folds = values.shape[1], random_folds(np.arange(len(values)), min(20, len(values)), 3)
    spread = [np.ptp(values[folds != fold], axis=0).any() for fold in range(folds.max() + 1)]
    if not all(spread):
        with pytest.raises(CalibrationError, match="same values in all"):
            delta.train(values, *matrices(k), seed=3)
        return
    fitted = delta.train(values, *matrices(k), seed=3)
    centre, scale = oracle.parameters(values)
    _agree(fitted.params["centre"], centre)
    _agree(fitted.params["scale"], scale)
    expected = oracle.held_out(values, folds.tolist())
    # a rounding of centre (up to 14) and of scale (1e-3 or more), where deviations are up to 2.4e4
    error = 2 * SLACK * U * (14 / scale.min() + np.abs(expected))
    assert (np.abs(fitted.held_out - expected) <= error).all()
    assert fitted.settings == {"matrices": k, "folds": 20}


@given(ROWS, st.randoms(use_true_random=False))
def test_scores_follow_the_rows_and_not_the_order_of_the_matrices(values: Array, random) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    """A permutation of the columns changes no held-out score."""
    order = random.sample(range(values.shape[1]), values.shape[1])
    places = matrices(len(order))
    try:
        plain = delta.train(values, *places).held_out
    except CalibrationError:
        return
    permuted = delta.train(np.ascontiguousarray(values[:, order]), *places).held_out
    assert plain.tolist() == permuted.tolist()


def test_parameters_are_what_the_detector_takes() -> None:
    """Names, dtypes and shapes; the places are as given, scales positive."""
    layers, parts = matrices()
    params = delta.fit(clean_values(100, 1), layers, parts, target_fpr=0.1)
    expected = {
        "layers": ("int32", (6,)), "parts": ("uint8", (6,)), "centre": ("float32", (6,)),
        "scale": ("float32", (6,)), "threshold": ("float64", ()),
        "clean_scores": ("float64", (100,)), "target_fpr": ("float64", ()),
        "fpr_interval": ("float64", (2,)),
    }  # fmt: skip
    assert {name: (a.dtype.name, a.shape) for name, a in params.items()} == expected
    assert params["layers"].tolist() == layers.tolist() == [1, 1, 2, 2, 3, 3]
    assert params["parts"].tolist() == parts.tolist() == [0, 1] * 3
    assert (params["scale"] > 0).all()
    assert (np.diff(params["clean_scores"]) >= 0).all()


@pytest.mark.parametrize("target", [0.1, 0.02])
def test_the_realised_rate_is_the_target(target: float) -> None:
    """The mean rate over draws of 300 rows is within four standard errors of its expectation."""
    fresh, draws = clean_values(4000, 99), 12
    rates = []
    for draw in range(draws):
        params = delta.fit(clean_values(300, draw), *matrices(), target_fpr=target, seed=draw)
        rates.append(float(np.mean(_scores(params, fresh) > params["threshold"])))
    error = np.sqrt(target * (1 - target) * (1 / 300 / draws + 1 / 4000))
    assert abs(np.mean(rates) - target) < 4 * error + 1 / 301


def test_held_out_scores_come_from_other_rows() -> None:
    """An outlier in a small fold is scored by a fit without it, and groups stay together."""
    values = clean_values(20, 5)
    values[7, 0] = 40
    trained = delta.train(values, *matrices())
    centre, scale = oracle.parameters(np.delete(values, 7, axis=0))
    assert trained.held_out[7] == pytest.approx((40 - centre[0]) / scale[0], rel=1e-6)
    doubled = np.concatenate([values, values])
    groups = [*range(20), *range(20)]
    together = delta.train(doubled, *matrices(), groups=groups).held_out
    assert together[7] == together[27]
    assert together[7] == pytest.approx(trained.held_out[7], rel=0.2)
    assert delta.train(doubled, *matrices()).held_out[7] < together[7] / 1.4
    assert len(delta.fit(doubled, *matrices(), groups=groups, target_fpr=0.1)["clean_scores"]) == 20


def test_a_group_counts_once_with_its_largest_score() -> None:
    """Windows of one text."""
    values, groups = clean_values(60, 2), np.arange(60) // 2
    params = delta.fit(values, *matrices(), groups=groups, target_fpr=0.1)
    held_out = delta.train(values, *matrices(), groups=groups).held_out
    assert params["clean_scores"].tolist() == sorted(held_out.reshape(30, 2).max(axis=1))
    folds = random_folds(group_codes(groups, 60), 20, 0)
    np.testing.assert_allclose(held_out, oracle.held_out(values, folds.tolist()), rtol=1e-5)


def test_by_source_scores_use_the_other_sources() -> None:
    """The parameters are those of all rows; each score is by a fit without the row's source."""
    values, sources = clean_values(60, 5), ["web", "chat", "mail"] * 20
    values[1::3] += 2
    trained = delta.train(values, *matrices(), "by-source", sources=sources)
    others = np.array(sources) != "chat"
    rest = delta.train(values[others], *matrices())
    assert trained.held_out[~others].tolist() == _scores(rest.params, values[~others]).tolist()
    assert trained.settings == {"matrices": 6, "sources": 3}
    all_rows = delta.train(values, *matrices()).params
    assert all(trained.params[name].tobytes() == all_rows[name].tobytes() for name in all_rows)
    held_in = delta.fit(values, *matrices(), target_fpr=0.1)["threshold"]
    by_source = delta.fit(values, *matrices(), "by-source", 0.1, sources=sources)["threshold"]
    assert by_source > held_in


def test_a_matrix_that_hardly_varies_raises_no_alarm_alone() -> None:
    """A matrix that is constant on the rows has the scale of the others."""
    values = clean_values(100, 6)
    values[:, 5] = 1
    params = delta.fit(values, *matrices(), target_fpr=0.1)
    assert params["scale"][5] > 0.1
    moved = values.copy()
    moved[:, 5] += 0.01
    assert (_scores(params, moved) > params["threshold"]).sum() == (
        _scores(params, values) > params["threshold"]
    ).sum()


def test_equal_values_of_most_matrices_leave_the_least_scale() -> None:
    """A scale is never zero."""
    values = np.zeros((40, 6), np.float32)
    values[:, 0] = np.random.default_rng(0).normal(size=40)
    params = delta.fit(values, *matrices(), target_fpr=0.1)
    assert params["scale"][1:].tolist() == [np.float32(1e-3)] * 5


def test_recorded_values_give_the_parameters_of_an_array() -> None:
    """``States`` [n, 1, K], as calibration records them, and a selection of them."""
    values = clean_values(60, 8)
    states = ArrayStates(values[:, None])
    one, other = (delta.fit(given, *matrices(), target_fpr=0.1) for given in (values, states))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    some = np.arange(60) % 2 == 0
    one = delta.fit(values[some], *matrices(), target_fpr=0.1)
    other = delta.fit(SelectedStates(states, some), *matrices(), target_fpr=0.1)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_the_same_rows_give_the_same_bytes() -> None:
    """Equal arguments give equal bytes; another seed gives other folds."""
    values = clean_values(60, 8)
    one, same, other = (
        delta.fit(values, *matrices(), seed=seed, target_fpr=0.1) for seed in (1, 1, 2)
    )
    assert all(one[name].tobytes() == same[name].tobytes() for name in one)
    assert one["clean_scores"].tobytes() != other["clean_scores"].tobytes()


def test_rows_that_cannot_be_calibrated_are_refused() -> None:
    """Too few rows or sources, too low a target, values that are not finite, equal rows."""
    values = clean_values(50, 1)
    with pytest.raises(CalibrationError, match="found 9 clean prompts; expected at least 10"):
        delta.fit(values[:9], *matrices(), target_fpr=0.1)
    with pytest.raises(CalibrationError, match="found 5 clean prompts"):
        delta.fit(values, *matrices(), target_fpr=0.1, groups=np.arange(50) % 5)
    with pytest.raises(CalibrationError, match="at least 99"):
        delta.fit(values, *matrices(), target_fpr=0.01)
    with pytest.raises(CalibrationError, match="same values in all"):
        delta.fit(np.repeat(values[:1], 50, axis=0), *matrices(), target_fpr=0.1)
    with pytest.raises(CalibrationError, match=r"found rows of 1 source\(s\)"):
        delta.fit(values, *matrices(), "by-source", 0.1)
    for bad in (np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[3, 0] = bad
        broken[9, 1] = bad
        with pytest.raises(CalibrationError, match=r"row 3 is not finite \(2 such rows of 50\)"):
            delta.fit(broken, *matrices(), target_fpr=0.1)


def test_wrong_arguments_are_refused() -> None:
    """An unknown mode or target, another shape or dtype, matrices out of range or out of order."""
    values = clean_values(50, 1)
    for mode in ("loo", "reference"):
        with pytest.raises(InputError, match="expected one of cross-fit, by-source"):
            delta.fit(values, *matrices(), mode=mode, target_fpr=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="target_fpr: found 1"):
        delta.train(values, *matrices(), target_fpr=1)
    for wrong in (values[:, :5], values.astype(np.float64), values[0]):
        with pytest.raises(InputError, match=r"expected float32 \[n, 6\]"):
            delta.fit(wrong, *matrices(), target_fpr=0.1)
    layers, parts = matrices()
    for wrong_layers, wrong_parts in (
        (layers[::-1], parts), (layers - 1, parts), (layers, parts + 1), (layers, parts[:5]),
        (layers, np.zeros(6, np.uint8)), (layers[:0], parts[:0]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="expected one pair for each matrix, ascending"):
            delta.fit(values, wrong_layers, wrong_parts, target_fpr=0.1)
