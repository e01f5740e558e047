"""Buffers in the shapes that vLLM returns."""

from typing import Any

import numpy as np
import pytest
import torch

from layerguard.runtime import Guard
from layerguard.runtime.engines.vllm import batch, saved
from tests.runtime.engines.buffers import STATES, addresses, refused, singles, tensors

IDS = range(STATES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


@pytest.mark.usefixtures("in_place")
@dtypes
def test_a_saved_prompt_is_read_in_place(guard: Guard, dtype: torch.dtype) -> None:
    """In [tokens, layers, hidden], the rows of a layer have a stride."""
    states = tensors(dtype=dtype)
    written = states.transpose(0, 1).contiguous()
    found = saved(written, [3, 0, 2, 1])
    assert addresses(found) == addresses(written.unbind(1))
    expected = guard.score_states(singles(states)).readings
    assert guard.score_states(found).readings == expected


@pytest.mark.usefixtures("in_place")
@dtypes
def test_a_step_is_read_request_by_request(guard: Guard, dtype: torch.dtype) -> None:
    """Flat layers of three requests with padding rows are split."""
    states = tensors(16, dtype)
    states[:, 13:] = float("nan")
    starts = torch.tensor([0, 5, 6, 13], dtype=torch.int32)
    found = batch(list(states), starts, IDS)
    assert len(found) == 3
    for request, (a, b) in zip(found, [(0, 5), (5, 6), (6, 13)], strict=True):
        assert addresses(request) == addresses(states[:, a:b])
        expected = guard.score_states(singles(states[:, a:b])).readings
        assert guard.score_states(request).readings == expected


@pytest.mark.parametrize("ids", [range(1, STATES + 1), range(STATES - 1), (0, 1, 2, 2), ()])
def test_layers_that_are_not_all_are_refused(ids: Any) -> None:
    """Ids from 1, one too few, or one twice would give wrong layers."""
    for call in (
        lambda: saved(tensors().transpose(0, 1), ids),
        lambda: batch(list(tensors()), [0, 5], ids),
    ):
        with refused(f"found {STATES} layers for ids", "list(range(L + 1))"):
            call()


def test_a_last_layer_that_was_left_out_is_refused() -> None:
    """An architecture that counts only the inputs of blocks omits the last state."""
    with refused(f"found {STATES - 1} layers for ids [0, 1, 2, 3]", "returns the last state"):
        saved(tensors()[:-1].transpose(0, 1), IDS)


def test_layers_side_by_side_are_refused() -> None:
    """A two-dimensional array belongs to another engine."""
    with refused("found shape (5, 64); expected [tokens, layers, hidden]"):
        saved(tensors().transpose(0, 1).reshape(5, -1), IDS)


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        ([0], "expected 0, then the end of each request"),
        ([1, 5], "found [1, 5]"),
        ([0, 6], "at most 5, the number of rows"),
        ([0, 2, 5, 5], "request 2 has no tokens"),
        ([0, 3, 2, 5], "found 2 after 3"),
    ],
)
def test_places_that_cannot_be_are_refused(starts: list[int], words: str) -> None:
    """Starts must begin at 0, increase, and end within the rows."""
    with refused("starts: found", words):
        batch(list(tensors()), np.array(starts), IDS)
