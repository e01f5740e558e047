"""Buffers and responses in the shapes that SGLang returns."""

from itertools import accumulate
from typing import Any

import pytest
import torch

from layerguard.runtime import Guard
from layerguard.runtime.engines.flat import requests
from layerguard.runtime.engines.sglang import captured, returned
from tests.runtime.engines.buffers import STATES, addresses, refused, singles, tensors
from tests.tiny import WIDTH

ALL = range(STATES)
INNER = range(1, STATES - 1)


def side_by_side(states: torch.Tensor) -> torch.Tensor:
    """[tokens, layers x hidden]."""
    return torch.cat(list(states), dim=-1)


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_layers_side_by_side_are_read_in_place(guard: Guard, dtype: torch.dtype) -> None:
    """Each layer is a block of columns of one buffer."""
    states = tensors(dtype=dtype)
    buffer = side_by_side(states)
    found = captured(buffer, ALL, WIDTH)
    assert addresses(found) == addresses(buffer.split(WIDTH, dim=1))
    expected = guard.score_states(singles(states)).readings
    assert guard.score_states(found).readings == expected


@pytest.mark.usefixtures("in_place")
def test_a_batch_is_cut_into_its_requests(guard: Guard) -> None:
    """The batch is split by the lengths that the engine keeps, in place."""
    states = tensors(9)
    found = requests(captured(side_by_side(states), ALL, WIDTH), [0, *accumulate([4, 5])])
    for request, part in zip(found, (states[:, :4], states[:, 4:]), strict=True):
        expected = guard.score_states(singles(part)).readings
        assert guard.score_states(request).readings == expected


def test_what_is_not_captured_comes_from_hooks(guard: Guard) -> None:
    """Embedding output and last block's output are added to the captured layers."""
    states = tensors()
    buffer = side_by_side(states[1:-1])
    found = captured(buffer, INNER, WIDTH, also={STATES - 1: states[-1], 0: states[0]})
    assert addresses(found) == addresses([states[0], *buffer.split(WIDTH, dim=1), states[-1]])
    expected = guard.score_states(singles(states)).readings
    assert guard.score_states(found).readings == expected


def test_an_answer_s_lists_are_read(guard: Guard) -> None:
    """One list for the prompt, then a row or a list of rows for generated tokens."""
    states = tensors(8)
    rows = side_by_side(states).tolist()
    steps: list[Any] = [rows[:5], rows[5], [rows[6]], rows[7]]
    found = returned({"hidden_states": steps, "prompt_tokens": 5})
    verdict = guard.score_states(captured(found, ALL, WIDTH))
    assert verdict.readings == guard.score_states(singles(states)).readings


def test_the_last_state_alone_is_refused() -> None:
    """``return_hidden_states`` alone gives the state after the final norm."""
    with refused("found states [3]", "after the final norm"):
        captured(tensors()[-1], [STATES - 1], WIDTH)


@pytest.mark.parametrize(
    ("layers", "also"), [(INNER, {0: "s"}), ((2, 1), {0: "s", 3: "s"}), (INNER, {0: "s", 1: "s"})]
)
def test_states_that_are_not_all_are_refused(layers: Any, also: dict[int, Any]) -> None:
    """A missing, an exchanged and a repeated state are refused."""
    states = tensors()
    given = dict.fromkeys(also, states[0])
    if also.keys() == {0}:
        layers, buffer = range(2, STATES), side_by_side(states[2:])
    else:
        buffer = side_by_side(states[1:-1])
    with refused("layers: found states", "expected 0 (the embedding output) to L"):
        captured(buffer, layers, WIDTH, given)


def test_a_buffer_of_another_width_is_refused() -> None:
    """The number of columns must be layers times width."""
    with refused("found shape (5, 64); expected [tokens, 48] for 3 states of width 16"):
        captured(side_by_side(tensors()), range(3), WIDTH)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({}, "found no hidden_states"),
        ({"hidden_states": []}, "enable_return_hidden_states"),
        ({"hidden_states": [[[1.0, 2.0]], [1.0]]}, "do not form a matrix"),
        ({"hidden_states": [[[1.0, 2.0], [1.0]]]}, "do not form a matrix"),
        ({"hidden_states": ["states"]}, "do not form a matrix"),
        ({"hidden_states": [[[1.0]] * 3], "prompt_tokens": 7}, "3 rows for a prompt of 7 tokens"),
    ],
)
def test_answers_without_all_rows_are_refused(meta: dict[str, Any], words: str) -> None:
    """Missing rows, ragged rows, and rows of a partly cached prompt are refused."""
    with refused(words):
        returned(meta)
