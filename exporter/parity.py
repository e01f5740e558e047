"""The proof: the exported file against the model in PyTorch, on shapes that the trace never saw.

The reference takes another road than the graph: the untouched model with eager attention, one
unpadded row at a time with no mask and no position ids, its states as transformers gives them
(``output_hidden_states``), pooled in float64. So padding on either side, batching, positions, the
cut and the pooling are all proved together. Not proved: rows longer than 512 tokens, where windowed
attention may lie beyond what was run. Where rotary frequencies switch, however late, one row is a
token longer than that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from layerguard.exporter.architecture import Architecture
from layerguard.exporter.comparison import Comparison, Differences
from layerguard.exporter.recording import first
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array

Side = Literal["left", "right"]

_SHAPES: Sequence[tuple[int, int, Side]] = (
    (1, 1, "right"), (1, 7, "right"), (2, 5, "left"), (3, 17, "right"), (3, 17, "left"),
    (6, 33, "left"), (6, 33, "right"),
)  # fmt: skip
LONGEST = 512
"""Also one row as long as the model takes, up to this: the reference has no fused attention."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One batch: int64 [batch, tokens] twice."""

    input_ids: Array
    attention_mask: Array

    def rows(self) -> Iterator[tuple[Array, Array]]:
        """Each row's valid ids [tokens of the row], and its mask [tokens] as bool."""
        for ids, mask in zip(self.input_ids, self.attention_mask.astype(bool), strict=True):
            yield ids[mask], mask


def make_cases(architecture: Architecture, pad: int) -> list[Case]:
    """Batches of random tokens over the shapes above; padding ids appear as padding only."""
    rng = np.random.default_rng(0)
    most = min(architecture.max_positions or LONGEST, LONGEST)
    shapes = [(rows, min(tokens, most), side) for rows, tokens, side in _SHAPES]
    shapes.append((1, most, "right"))
    if architecture.rope_switch:  # one row of either set of rotary frequencies, side by side
        shapes.append((2, architecture.rope_switch + 1, "left"))
    cases = []
    for batch, length, side in shapes:
        ids = np.full((batch, length), pad, np.int64)
        mask = np.zeros((batch, length), np.int64)
        for row in range(batch):
            valid = length if row == 0 else int(rng.integers(1, length + 1))
            place = slice(length - valid, None) if side == "left" else slice(valid)
            drawn = rng.integers(0, architecture.vocabulary - 1, valid)
            ids[row, place] = drawn + (drawn >= pad)
            mask[row, place] = 1
        cases.append(Case(ids, mask))
    return cases


def reference(
    architecture: Architecture,
    cases: Sequence[Case],
    outputs: Sequence[OutputCard],
    feed_forwards: Sequence[nn.Module] = (),
) -> list[list[list[Array]]]:
    """What each output should be, by case, row and output: [hidden], or [tokens, hidden] of states.

    Raises:
        ExportError: the model does not give one hidden state more than it has blocks.
    """
    with eager(architecture.model):
        return [
            [_row(architecture, ids, outputs, feed_forwards) for ids, _ in case.rows()]
            for case in cases
        ]


def compare(
    session: Any,
    cases: Sequence[Case],
    expected: Sequence[Sequence[Sequence[Array]]],
    outputs: Sequence[OutputCard],
) -> Comparison:
    """Run the graph over the cases and measure it against the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        cases: as ``reference`` was given.
        expected: what ``reference`` returned.
        outputs: as ``reference`` was given.
    """
    names = [card.name for card in outputs]
    differences = Differences(names)
    for case, rows in zip(cases, expected, strict=True):
        feeds = {"input_ids": case.input_ids, "attention_mask": case.attention_mask}
        for index, found in enumerate(session.run(names, feeds)):
            for number, (_, valid) in enumerate(case.rows()):
                mine = found[number][valid] if found.ndim == 3 else found[number]
                differences.add(names[index], mine, rows[number][index])
    return differences.comparison(len(cases))


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Plain attention within the block, as the paper writes it."""
    attention = model.config._attn_implementation  # noqa: SLF001
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """One unpadded text through the model in PyTorch, float64.

    Attributes:
        states: L + 1 arrays [tokens, hidden].
        normed: the last state after the final norm, [tokens, hidden].
        mlp: what each feed-forward part wrote, [tokens, hidden].
        output: what the model returned.
    """

    states: Sequence[Array]
    normed: Array
    mlp: Sequence[Array]
    output: Any


@torch.inference_mode()
def observe(
    architecture: Architecture,
    ids: Array,
    feed_forwards: Sequence[nn.Module] = (),
    causal: PreTrainedModel | None = None,
    **given: Any,
) -> Observed:
    """Run one text, with no mask and no position ids.

    Args:
        architecture: the backbone.
        ids: int64 [tokens].
        feed_forwards: whose outputs to keep.
        causal: the language model to call, instead of its backbone alone.
        given: further arguments of the call.

    Raises:
        ExportError: the model does not give one hidden state more than it has blocks.
    """
    kept: dict[int, Array] = {}

    def keep(place: int) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            kept[place] = _array(first(output))

        return hook

    # place 0 is the last block; transformers only gives what the final norm made of it
    watched = [architecture.blocks[-1], *feed_forwards]
    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(watched)]
    try:
        run = (causal or architecture.model)(
            input_ids=torch.from_numpy(ids[None]),
            output_hidden_states=True,
            return_dict=True,
            **given,
        )
    finally:
        for handle in handles:
            handle.remove()
    if len(run.hidden_states) != architecture.layers + 1:
        raise ExportError(
            f"{type(architecture.model).__name__} gives {len(run.hidden_states)} hidden states for "
            f"{architecture.layers} blocks; expected one more than blocks, so the export cannot be "
            "proved. Report the model"
        )
    return Observed(
        states=[*(_array(state) for state in run.hidden_states[:-1]), kept[0]],
        normed=_array(run.hidden_states[-1]),
        mlp=[kept[place] for place in range(1, len(watched))],
        output=run,
    )


def _row(
    architecture: Architecture,
    ids: Array,
    outputs: Sequence[OutputCard],
    feed_forwards: Sequence[nn.Module],
) -> list[Array]:
    """The outputs for one unpadded text, float64."""
    seen = observe(architecture, ids, feed_forwards)
    give: dict[str, Any] = {
        "state": lambda layer: seen.states[layer],
        "last": lambda layer: seen.states[layer][-1],
        "mean": lambda layer: seen.states[layer].mean(0),
        "final_norm": lambda _: seen.normed,
        "final_norm_last": lambda _: seen.normed[-1],
        "final_norm_mean": lambda _: seen.normed.mean(0),
        "mlp_mean": lambda layer: seen.mlp[layer - 1].mean(0),
    }
    return [give[card.kind](card.layer) for card in outputs]


def _array(tensor: torch.Tensor) -> Array:
    """[1, tokens, hidden] -> float64 [tokens, hidden]."""
    return tensor[0].to(torch.float64).numpy()
