"""States from another engine that are not what the detectors were calibrated on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Guard, InputError
from layerguard.runtime.types import Array

_TOKENS = 5


def _states(count: int = 4, tokens: int = _TOKENS, width: int = 16) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(tokens, width)).astype(np.float32) for _ in range(count)]


def _swap(index: int, value: Any) -> list[Any]:
    states: list[Any] = _states()
    states[index] = value
    return states


_WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, "states: found NoneType"),
    "number": (lambda: 7, "states: found int"),
    "generator": (lambda: (state for state in _states()), "states: found generator"),
    "object": (lambda: {"states": _states()}, "states: found dict"),
    "empty": (list, "states: found list"),
    "scalar": (lambda: np.zeros(()), "states: found ndarray"),
    "scalars": (lambda: [np.zeros(())] * 4, "states: found list"),
    "three-layers": (lambda: _states(3), "found 3 of width 16; expected 4"),
    "five-layers": (lambda: _states(5), "found 5 of width 16; expected 4"),
    "one-array-of-three": (lambda: np.stack(_states(3)), "found 3 of width 16; expected 4"),
    "narrow": (lambda: _states(width=8), "width 8"),
    "wide": (lambda: _states(width=32), "width 32; expected 4 of width 16"),
    "no-width": (lambda: _states(width=0), "width"),
    "no-tokens": (lambda: _states(tokens=0), "no unmasked token"),
    "one-dimension": (lambda: [state[0] for state in _states()], "found shape (16,)"),
    "three-dimensions": (lambda: [state[None] for state in _states()], "shape (1, 5, 16)"),
    "one-array-of-rank-four": (lambda: np.stack(_states())[:, None], "shape (1, 5, 16)"),
    "one-layer-of-three-dimensions": (lambda: _swap(2, _states()[0][None]), "layer 2: found"),
    "float64": (lambda: [s.astype(np.float64) for s in _states()], "dtype float64"),
    "int32": (lambda: [s.astype(np.int32) for s in _states()], "dtype int32"),
    "int8": (lambda: [s.astype(np.int8) for s in _states()], "dtype int8"),
    "bool": (lambda: [s > 0 for s in _states()], "dtype bool"),
    "complex": (lambda: [s.astype(np.complex64) for s in _states()], "dtype complex64"),
    "object-dtype": (lambda: [s.astype(object) for s in _states()], "dtype object"),
    "text": (lambda: [s.astype(str) for s in _states()], "dtype <U"),
    "big-endian": (lambda: [s.astype(">f4") for s in _states()], "native byte order"),
    "one-layer-of-another-dtype": (lambda: _swap(1, _states()[1].astype(np.float16)), "layer 1"),
    "one-layer-of-another-width": (lambda: _swap(3, _states(width=8)[0]), "layer 3: found"),
    "one-layer-of-fewer-tokens": (lambda: _swap(3, _states()[0][:3]), "layer 3: found"),
    "one-layer-is-nothing": (lambda: _swap(2, None), "layer 2: found NoneType"),
    "one-layer-is-a-list": (lambda: _swap(2, [[0.0] * 16] * 5), "layer 2: found list"),
    "lists": (lambda: [s.tolist() for s in _states()], "layer 0: found list"),
    "texts": (lambda: ["the garden"] * 4, "found"),
    "columns-apart": (lambda: [s.T.copy().T for s in _states()], "np.ascontiguousarray"),
    "every-other-column": (
        lambda: [s[:, ::2] for s in _states(width=32)],
        "8 bytes from one element of a row to the next, expected 4",
    ),
    "columns-backwards": (lambda: [s[:, ::-1] for s in _states()], "-4 bytes"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_states_are_named(guard: Guard, case: str) -> None:
    """States of another number, shape, dtype or layout are refused with what was found."""
    make, word = _WRONG[case]
    with pytest.raises(InputError) as caught:
        guard.score_states(make())
    assert word in str(caught.value)
    assert "expected" in str(caught.value) or "give" in str(caught.value)


_MASKS: dict[str, tuple[Any, str]] = {
    "too-short": (np.ones(4), "mask: found shape (4,), expected (5,)"),
    "too-long": (np.ones(6), "mask: found shape (6,), expected (5,)"),
    "two-dimensions": (np.ones((1, 5)), "mask: found shape (1, 5), expected (5,)"),
    "scalar": (True, "mask: found shape"),
    "text": ("11111", "mask: found shape"),
    "empty": (np.zeros(0), "mask: found shape (0,), expected (5,)"),
    "keeps-nothing": (np.zeros(5), "there is no unmasked token"),
}


@pytest.mark.parametrize("case", _MASKS)
def test_wrong_masks_are_named(guard: Guard, case: str) -> None:
    """A mask has one entry a token and keeps at least one."""
    mask, word = _MASKS[case]
    with pytest.raises(InputError) as caught:
        guard.score_states(_states(), mask=mask)
    assert word in str(caught.value)


@pytest.mark.parametrize("roles", [3, [1, 2], np.ones(6), np.ones((5, 1)), "user"], ids=str)
def test_wrong_roles_are_named(guard: Guard, roles: Any) -> None:
    """Roles have one entry a token."""
    with pytest.raises(InputError, match=r"roles: found shape .*; expected \(5,\)"):
        guard.score_states(_states(), roles=roles)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layer", range(4))
def test_values_that_are_not_finite_are_flagged(guard: Guard, layer: int, value: float) -> None:
    """One NaN or infinity where a detector reads makes the verdict invalid and flagged."""
    states = _states()
    states[layer][-1, 3] = value
    verdict = guard.score_states(states)
    assert (verdict.flagged, verdict.status) == (True, "invalid")
    assert "not finite" in verdict.reason
    assert verdict.readings["lcf"].status == "invalid"
    assert all(r.p_value == 1 / 51 for r in verdict.readings.values() if r.status == "invalid")


def test_nothing_but_nan_is_flagged_by_every_detector(guard: Guard) -> None:
    """Whatever a detector reads of such states, it is not a score."""
    verdict = guard.score_states(np.full((4, _TOKENS, 16), np.nan, np.float32))
    assert {r.status for r in verdict.readings.values()} == {"invalid"}


@pytest.mark.parametrize("size", [1e20, 1e30, 3e38])
def test_values_beyond_all_measure_are_flagged(guard: Guard, size: float) -> None:
    """Finite states whose sums overflow fail closed too, and without a warning."""
    verdict = guard.score_states([state * np.float32(size / 10) for state in _states()])
    assert verdict.flagged


def test_what_the_mask_leaves_out_does_not_count(guard: Guard) -> None:
    """A NaN at a token that the mask leaves out changes nothing."""
    states, mask = _states(), np.array([1, 1, 1, 1, 0])
    expected = guard.score_states([state[:4].copy() for state in states])
    for state in states:
        state[4] = np.nan
    assert guard.score_states(states, mask=mask).readings == expected.readings


def test_rows_may_lie_apart(guard: Guard) -> None:
    """Rows with a stride of their own are read where they lie."""
    states = _states()
    apart = [np.repeat(state, 3, axis=0)[::3] for state in states]
    assert guard.score_states(apart).readings == guard.score_states(states).readings


def test_a_list_of_faults_names_every_layer(guard: Guard) -> None:
    """Three wrong layers give three lines."""
    states: list[Any] = _states()
    states[1], states[2], states[3] = None, states[2][None], states[3].astype(int)
    with pytest.raises(InputError) as caught:
        guard.score_states(states)
    assert all(f"layer {index}: found" in str(caught.value) for index in (1, 2, 3))
