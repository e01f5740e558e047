"""A small Llama in transformers, whose last hidden state is after the final norm."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from layerguard.runtime import Guard
from layerguard.runtime.engines.transformers import LastBlock, states
from tests.exporter.models import build
from tests.runtime.engines.buffers import STATES, addresses, refused
from tests.tiny import LAYERS, WIDTH

IDS = torch.arange(3, 17).reshape(2, 7)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """A model with the depth and width of the toy bundle's model."""
    return build("llama", hidden_size=WIDTH, num_hidden_layers=LAYERS, head_dim=4)


@contextmanager
def blocks_watched(model: Any) -> Iterator[list[torch.Tensor]]:
    """What each block writes."""
    written: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda *call: written.append(call[2])) for block in model.layers
    ]
    yield written
    for handle in handles:
        handle.remove()


@torch.inference_mode()
def run(model: Any, ids: torch.Tensor = IDS) -> tuple[Any, LastBlock, list[torch.Tensor]]:
    """Hidden states, the recorded last block, and the outputs of all blocks, of one pass."""
    with blocks_watched(model) as written, LastBlock(model.layers[-1]) as last:
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    return hidden, last, written


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("row", [0, 1])
def test_the_states_are_what_the_blocks_wrote(
    guard: Guard, model: PreTrainedModel, row: int
) -> None:
    """Each row is read in place, with the last state from before the final norm."""
    hidden, last, written = run(model)
    found = states(hidden, last, row)
    assert len(found) == STATES
    assert addresses(found) == addresses([s[row] for s in (hidden[0], *written)])
    stacked = np.stack([state.numpy()[row] for state in (hidden[0], *written)])
    assert guard.score_states(found).readings == guard.score_states(stacked).readings
    assert not np.allclose(found[-1], hidden[-1][row])


def test_half_precision_is_read_in_place(guard: Guard, model: PreTrainedModel) -> None:
    """bfloat16 states are read in place as bits."""
    hidden, last, written = run(build("llama", hidden_size=WIDTH, head_dim=4).bfloat16())
    found = states(hidden, last)
    assert {state.dtype for state in found} == {np.dtype(np.uint16)}
    assert addresses(found) == addresses([s[0] for s in (hidden[0], *written)])
    singles = np.stack([state.float().numpy()[0] for state in (hidden[0], *written)])
    assert guard.score_states(found).readings == guard.score_states(singles).readings
    assert model.dtype == torch.float32


def test_padding_is_left_out_by_the_mask(guard: Guard, model: PreTrainedModel) -> None:
    """A row padded on either side scores as the row without padding."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    with torch.inference_mode(), LastBlock(model.layers[-1]) as last:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hidden = model(
            input_ids=IDS[:1], attention_mask=mask, position_ids=positions,
            output_hidden_states=True,
        ).hidden_states  # fmt: skip
    padded = guard.score_states(states(hidden, last), mask=mask[0].numpy())
    alone, watched, _ = run(model, IDS[:1, 2:])
    expected = guard.score_states(states(alone, watched))
    assert padded.tokens == expected.tokens == 5
    for name, reading in expected.readings.items():
        assert padded.readings[name].score == pytest.approx(reading.score, rel=1e-4)


@pytest.mark.parametrize("other", [None, "tensor"])
def test_the_state_after_the_norm_is_refused(model: PreTrainedModel, other: Any) -> None:
    """Without a recorded block, the last state is refused."""
    hidden, _, _ = run(model)
    with refused("expected a LastBlock", "after the final norm"):
        states(hidden, other and hidden[-1])


def test_a_pass_goes_with_its_own_hidden_states(model: PreTrainedModel) -> None:
    """States of an earlier pass, or of several passes, are refused."""
    hidden, last, written = run(model)
    for row in (0, 1):
        assert addresses(states(hidden, last, row)[-1:]) == addresses([written[-1][row]])
    with refused("ran 0 times"):
        states([*hidden], last)
    with torch.inference_mode(), LastBlock(model.layers[-1]) as twice:
        for _ in range(2):
            hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states
    with refused("ran 2 times"):
        states(hidden, twice)


def test_another_pass_s_shape_is_refused(model: PreTrainedModel) -> None:
    """The recorded block must have read the same tokens."""
    hidden, _, _ = run(model)
    _, last, _ = run(model, IDS[:, :4])
    with refused("found shapes [(2, 4, 16), (2, 7, 16)]"):
        states(hidden, last)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_outside_the_batch_is_refused(model: PreTrainedModel, row: int) -> None:
    """Rows count from 0."""
    hidden, last, _ = run(model)
    with refused(f"row: found {row}; expected 0 to 1"):
        states(hidden, last, row)


def test_what_is_no_forward_pass_is_refused(model: PreTrainedModel) -> None:
    """No hidden states, selected ones, or those of ``generate`` are refused."""
    hidden, last, _ = run(model)
    cases = ((None, "nothing"), ((hidden[0], None), "NoneType"), ((hidden, hidden), "tuple"))
    for wrong, kind in cases:
        with refused(f"hidden_states: found {kind}", "one forward pass"):
            states(wrong, last)  # type: ignore[arg-type]
