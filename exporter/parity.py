"""The proof: the exported file against the model in PyTorch, on shapes that the trace never saw.

The reference takes another road than the graph: the untouched model with eager attention, one
unpadded row at a time with no mask and no position ids, its states as transformers gives them
(``output_hidden_states``), pooled in float64. So padding on either side, batching, positions, the
cut and the pooling are all proved together. Not proved: rows longer than 512 tokens, where windowed
attention or a rope switch may lie beyond what was run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from layerguard.exporter.architecture import Architecture
from layerguard.exporter.recording import first
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array

Dtype = Literal["float32", "float16", "int8"]
Side = Literal["left", "right"]

_SHAPES: Sequence[tuple[int, int, Side]] = (
    (1, 1, "right"), (1, 7, "right"), (2, 5, "left"), (3, 17, "right"), (3, 17, "left"),
    (6, 33, "left"), (6, 33, "right"),
)  # fmt: skip
_LONGEST = 512
"""Also one row as long as the model takes, up to this: the reference has no fused attention."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The measure that decides for one precision, and its limit."""

    measure: Literal["difference", "cosine_distance"]
    limit: float


GATES: Mapping[Dtype, Gate] = {
    "float32": Gate("difference", 1e-4),
    "float16": Gate("cosine_distance", 1e-3),
    "int8": Gate("cosine_distance", 0.1),
}
"""float32 is held to each value. Rounding to 11 or 8 bits moves single values by more than that, so
the others are held to the direction of each vector. Measured on all-MiniLM-L6-v2, random tokens:
difference 5e-6, cosine distance 3e-6 in float16 and 0.07 in int8."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One batch: int64 [batch, tokens] twice."""

    input_ids: Array
    attention_mask: Array

    def rows(self) -> Iterator[tuple[Array, Array]]:
        """Each row's valid ids [tokens of the row], and its mask [tokens] as bool."""
        for ids, mask in zip(self.input_ids, self.attention_mask.astype(bool), strict=True):
            yield ids[mask], mask


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How far graph and reference are apart, by output name.

    Attributes:
        largest: max |graph - eager| / max(1, |eager|) over all values: absolute up to one,
            relative above, because float32 keeps seven digits however large a state is.
        cosine_distance: max 1 - cos(graph, eager) over all vectors.
        shapes: how many batches were compared.
    """

    largest: Mapping[str, float]
    cosine_distance: Mapping[str, float]
    shapes: int

    def decisive(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, the measure that the gate of this precision looks at."""
        return self.largest if GATES[dtype].measure == "difference" else self.cosine_distance

    def decide(self, dtype: Dtype) -> None:
        """Pass, or raise.

        Raises:
            ExportError: an output is beyond the limit for its precision, or not finite.
        """
        gate = GATES[dtype]
        by_output = self.decisive(dtype)
        beyond = [name for name, value in by_output.items() if not value <= gate.limit]
        if beyond:
            worst = max(beyond, key=lambda name: np.nan_to_num(by_output[name], nan=np.inf))
            raise ExportError(
                f"the {dtype} graph is not the model: {len(beyond)} of {len(by_output)} outputs "
                f"differ from PyTorch, first {beyond[0]}, most {worst} with "
                f"{gate.measure.replace('_', ' ')} {by_output[worst]:.3g}; expected at most "
                f"{gate.limit:g}. No bundle was written. "
                + (
                    "Try another version of torch or transformers, and report the model"
                    if dtype == "float32"
                    else "Try --dtype float32: this model's states do not fit a coarser one"
                )
            )


def make_cases(architecture: Architecture, pad: int) -> list[Case]:
    """Batches of random tokens over the shapes above; padding ids appear as padding only."""
    rng = np.random.default_rng(0)
    most = min(architecture.max_positions or _LONGEST, _LONGEST)
    cases = []
    for batch, tokens, side in (*_SHAPES, (1, most, "right")):
        length = min(tokens, most)
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
    model = architecture.model
    attention = model.config._attn_implementation  # noqa: SLF001
    model.set_attn_implementation("eager")
    try:
        return [
            [_row(architecture, ids, outputs, feed_forwards) for ids, _ in case.rows()]
            for case in cases
        ]
    finally:
        model.set_attn_implementation(attention)


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
    largest, distance = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for case, rows in zip(cases, expected, strict=True):
        feeds = {"input_ids": case.input_ids, "attention_mask": case.attention_mask}
        for name, index, found in zip(
            names, range(len(names)), session.run(names, feeds), strict=True
        ):
            for number, (_, valid) in enumerate(case.rows()):
                mine = found[number][valid] if found.ndim == 3 else found[number]
                mine = mine.astype(np.float64)
                theirs = rows[number][index]
                # np.maximum, unlike max, lets a NaN through to the gate
                largest[name] = float(np.maximum(largest[name], _difference(mine, theirs)))
                distance[name] = float(np.maximum(distance[name], _cosine_distance(mine, theirs)))
    return Comparison(largest, distance, len(cases))


@torch.inference_mode()
def _row(
    architecture: Architecture,
    ids: Array,
    outputs: Sequence[OutputCard],
    feed_forwards: Sequence[nn.Module],
) -> list[Array]:
    """The outputs for one unpadded text, float64."""
    kept: dict[int, Array] = {}

    def keep(place: int) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            kept[place] = _array(first(output))

        return hook

    # place 0 is the last block; transformers only gives what the final norm made of it
    watched = [architecture.blocks[-1], *feed_forwards]
    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(watched)]
    try:
        run = architecture.model(
            input_ids=torch.from_numpy(ids[None]), output_hidden_states=True, return_dict=True
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
    states = [*(_array(state) for state in run.hidden_states[:-1]), kept[0]]
    normed = _array(run.hidden_states[-1])
    give: dict[str, Any] = {
        "state": lambda layer: states[layer],
        "last": lambda layer: states[layer][-1],
        "mean": lambda layer: states[layer].mean(0),
        "final_norm": lambda _: normed,
        "final_norm_last": lambda _: normed[-1],
        "final_norm_mean": lambda _: normed.mean(0),
        "mlp_mean": lambda layer: kept[layer].mean(0),
    }
    return [give[card.kind](card.layer) for card in outputs]


def _array(tensor: torch.Tensor) -> Array:
    """[1, tokens, hidden] -> float64 [tokens, hidden]."""
    return tensor[0].to(torch.float64).numpy()


def _difference(mine: Array, theirs: Array) -> float:
    return float((np.abs(mine - theirs) / np.maximum(1, np.abs(theirs))).max())


def _cosine_distance(mine: Array, theirs: Array) -> float:
    product = (mine * theirs).sum(-1)
    norms = np.linalg.norm(mine, axis=-1) * np.linalg.norm(theirs, axis=-1)
    # two zero vectors agree; one alone does not
    cosine = np.where(norms > 0, product / np.where(norms > 0, norms, 1), (mine == theirs).all(-1))
    return float(np.maximum(0, 1 - cosine).max())
