"""The score of added lengths in C: against the oracle, its properties, and its faults."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from layerguard.runtime import kernels
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import parameter_faults
from layerguard.runtime.types import Array, Reading
from tests.kernel_cases import levels
from tests.random_detectors import make_delta
from tests.reference import delta as reference

KIND = REGISTRY["delta"]
SIZES = (1, 7, 8, 9, 31, 32, 33, 63, 64, 65)


def places(count: int) -> list[tuple[int, int]]:
    """The places of this many matrices: both parts of each block, but for one of the last."""
    return [(1 + k // 2, k % 2) for k in range(count)]


def read(params: dict[str, Array], rows: Array) -> list[Reading]:
    """The readings of rows (rows, K)."""
    return KIND.bind(params).score_pooled([rows])


def rows_of(count: int, seed: int, rows: int = 6) -> Array:
    """Values (rows, K) on both sides of the centres."""
    return np.random.default_rng(seed).normal(1, 3, (rows, count)).astype(np.float32)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("level", levels())
def test_scores_have_the_bits_of_the_oracle(count: int, level: str) -> None:
    """Of any number of matrices: each step is one rounding in double, as in the oracle."""
    params, rows = make_delta(places(count)), rows_of(count, count)
    kernels.set_level(level)
    try:
        found = [reading.score for reading in read(params, rows)]
    finally:
        kernels.set_level(None)
    assert found == reference.scores(rows, params["centre"], params["scale"]).tolist()


_floats = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(5)), elements=_floats),
    arrays.arrays(np.float32, 5, elements=_floats),
    arrays.arrays(np.float32, 5, elements=st.floats(2.0**-140, 2.0**100, width=32)),
)
def test_any_finite_parameters(rows: Array, centre: Array, scale: Array) -> None:
    """Subnormal scales and differences beyond float32 among them."""
    params = make_delta(places(5)) | {"centre": centre, "scale": scale}
    found = [reading.score for reading in read(params, rows)]
    assert found == reference.scores(rows, centre, scale).tolist()
    assert np.isfinite(found).all()


@given(
    count=st.sampled_from(SIZES), seed=st.integers(0, 99), place=st.integers(0, 64),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)  # fmt: skip
def test_what_is_not_finite_fails_closed(count: int, seed: int, place: int, value: float) -> None:
    """One such value anywhere makes its own row invalid and flagged, without evidence."""
    params, rows = make_delta(places(count)), rows_of(count, seed)
    expected = read(params, rows)
    rows[2, place % count] = value
    found = read(params, rows)
    assert (found[2].status, found[2].flagged, found[2].evidence) == ("invalid", True, ())
    assert np.isnan(found[2].score)
    assert found[:2] + found[3:] == expected[:2] + expected[3:]


@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_the_unit_of_the_deviations_does_not_matter(seed: int, factor: float) -> None:
    """Values, centres and scales times a power of two give the same scores."""
    params, rows = make_delta(places(9)), rows_of(9, seed)
    other = params | {name: params[name] * np.float32(factor) for name in ("centre", "scale")}
    assert read(params, rows) == read(other, rows * np.float32(factor))


@given(seed=st.integers(0, 2**32 - 1), more=st.floats(0.125, 100, width=32))
def test_a_larger_value_never_lowers_the_score(seed: int, more: float) -> None:
    """The score is monotone in every value."""
    params, rows = make_delta(places(9)), rows_of(9, seed, rows=1)
    before = read(params, rows)[0].score
    for k in range(9):
        raised = rows.copy()
        raised[0, k] += np.float32(more)
        assert read(params, raised)[0].score >= before


@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(-4, 4))
def test_evidence_is_the_largest_first(seed: int, threshold: float) -> None:
    """Of a flagged text the matrices above their centres; of another the largest alone."""
    params = make_delta(places(9)) | {"threshold": np.array(threshold)}
    rows = rows_of(9, seed, rows=1)
    excess = reference.excess(rows, params["centre"], params["scale"])[0]
    (reading,) = read(params, rows)
    order = np.argsort(-excess, kind="stable")
    above = [k for k in order if excess[k] > 0][:5] if reading.flagged else []
    expected = [int(k) for k in above] or [int(order[0])]
    assert reading.flagged == (excess.max() > threshold)
    assert [item.value for item in reading.evidence] == excess[expected].tolist()
    assert [item.layer for item in reading.evidence] == [1 + k // 2 for k in expected]
    names = ("down_proj, added", "o_proj, added")
    assert [item.measure for item in reading.evidence] == [names[k % 2] for k in expected]


def test_layout_changes_no_bit() -> None:
    """Rows of any stride are read where they lie."""
    params, wide = make_delta(places(7)), rows_of(14, 3, rows=12)
    expected = read(params, np.ascontiguousarray(wide[::3, :7]))
    assert read(params, wide[::3, :7]) == expected
    assert read(params, wide[::-3, :7][::-1]) == read(params, wide[2::3, :7])


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (2, 0), (2,), (2, 5, 1)])
def test_rows_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    """A row has one value for each matrix."""
    with pytest.raises(InputError):
        read(make_delta(places(5)), np.zeros(shape, np.float32))


def test_rows_of_other_layers_or_dtypes_are_refused() -> None:
    """One array, float32."""
    detector = KIND.bind(make_delta(places(5)))
    rows = np.zeros((2, 5), np.float32)
    for layers in ([rows, rows], [], [rows.astype(np.float64)], [rows.astype(np.float16)]):
        with pytest.raises(InputError):
            detector.score_pooled(layers)


def _faults(change: dict[str, Any], layers: int = 3) -> list[str]:
    params = make_delta([(1, 0), (1, 1), (3, 0)]) | change
    return parameter_faults("delta", params, layers, 16)


def _ints(*values: int) -> Array:
    return np.array(values, np.int32)


def _bytes(*values: int) -> Array:
    return np.array(values, np.uint8)


_EXPECTED = "expected blocks and their parts ascending, each once"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layers": _ints(1, 3, 1)}, f"delta/layers is [1, 3, 1]; {_EXPECTED}"),
        ({"parts": _bytes(1, 0, 0)}, f"delta/layers is [1, 1, 3]; {_EXPECTED}"),
        ({"parts": _bytes(1, 1, 0)}, f"delta/layers is [1, 1, 3]; {_EXPECTED}"),
        ({"layers": _ints(0, 1, 3)}, "delta/layers is [0, 1, 3]; expected blocks within 1..3"),
        ({"layers": _ints(1, 1, 4)}, "delta/layers is [1, 1, 4]; expected blocks within 1..3"),
        ({"layers": _ints(-1, 1, 3)}, "expected blocks within 1..3"),
        ({"parts": _bytes(0, 1, 2)}, "delta/parts has values above 1"),
        ({"scale": np.array([1, 0, 1], np.float32)}, "delta/scale has values of zero or less"),
        ({"scale": np.array([1, -1, 1], np.float32)}, "delta/scale has values of zero or less"),
        ({"scale": np.array([1, np.nan, 1], np.float32)}, "delta/scale has 1 values that are not"),
        ({"centre": np.array([1, np.inf, 1], np.float32)}, "delta/centre has 1 values that are"),
        ({"centre": np.zeros(4, np.float32)}, "delta/centre is float32 [4]; expected float32 [3]"),
        ({"parts": _bytes(0, 1)}, "delta/parts is uint8 [2]; expected uint8 [3]"),
        ({"layers": np.array([1, 1, 3])}, "delta/layers is int64 [3]; expected int32"),
    ],
)
def test_what_cannot_be_served_is_named(change: dict[str, Array], fault: str) -> None:
    """Each fault says what was found and expected."""
    assert _faults({}) == []
    faults = _faults(change)
    assert any(fault in found for found in faults), faults


def test_binding_refuses_what_is_not_sorted() -> None:
    """The depth of the model is not needed for that."""
    with pytest.raises(InputError, match=re.escape(f"delta/layers is [3, 1]; {_EXPECTED}")):
        KIND.bind(make_delta([(3, 0), (1, 0)]))
    with pytest.raises(InputError, match=r"expected blocks from 1 on"):
        KIND.bind(make_delta([(0, 0), (1, 0)]))


def test_no_matrix_is_no_detector() -> None:
    """Parameters without a matrix are refused."""
    faults = parameter_faults("delta", make_delta([]), 3, 16)
    assert any("delta/layers is empty" in fault for fault in faults)
