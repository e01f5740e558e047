"""The export check of a score graph, on shapes that differ from those of the trace.

The graph reads padded batches with fused attention; the reference reads each text alone with eager
attention (``exporter/proof/reference.py``) and is pooled in float64. This checks padding on both
sides, batches, positions, the number of layers and pooling together. Rows of more than 512 tokens
are not checked, so neither are attention windows longer than that. If the rotary frequencies switch
at some length, one row is one token longer than that length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.differences import Differences, Proof
from layerguard.exporter.proof.reference import ModelOutputs, References
from layerguard.runtime.bundle.manifest import ADDED_KINDS, OutputCard
from layerguard.runtime.checkpoints.places import Place
from layerguard.runtime.types import Array

Side = Literal["left", "right"]

_SHAPES: Sequence[tuple[int, int, Side]] = (
    (1, 1, "right"), (1, 7, "right"), (2, 5, "left"), (3, 17, "right"), (3, 17, "left"),
    (6, 33, "left"), (6, 33, "right"),
)  # fmt: skip
LONGEST = 512
"""Limit of the longest row, because eager attention of the reference takes quadratic memory."""


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """One batch: int64 [batch, tokens] twice."""

    input_ids: Array
    attention_mask: Array

    def rows(self) -> Iterator[tuple[Array, Array]]:
        """The valid ids [tokens of the row] and the mask [tokens] as bool, for each row."""
        for ids, mask in zip(self.input_ids, self.attention_mask.astype(bool), strict=True):
            yield ids[mask], mask


def longest(architecture: Architecture) -> int:
    """The number of tokens of the longest compared text."""
    return min(architecture.max_positions or LONGEST, LONGEST)


def draw_text(architecture: Architecture, pad: int, tokens: int, number: int) -> Array:
    """A text of random tokens without padding, int64 [tokens].

    Equal arguments give equal texts, so graphs share their reference runs.
    """
    rng = np.random.default_rng([tokens, number])
    drawn = rng.integers(0, architecture.vocabulary - 1, tokens)
    text: Array = drawn + (drawn >= pad)
    return text


def make_batches(architecture: Architecture, pad: int) -> list[TextBatch]:
    """Batches of random tokens in the shapes above; the first row of each has no padding."""
    most = longest(architecture)
    shapes = [(rows, min(tokens, most), side) for rows, tokens, side in _SHAPES]
    shapes.append((1, most, "right"))
    if architecture.rope_switch:  # one row for each set of rotary frequencies
        shapes.append((2, architecture.rope_switch + 1, "left"))
    batches = []
    for count, length, side in shapes:
        rng = np.random.default_rng([count, length])
        lengths = [length, *rng.integers(1, length + 1, count - 1).tolist()]
        ids = np.full((count, length), pad, np.int64)
        mask = np.zeros((count, length), np.int64)
        for row, valid in enumerate(lengths):
            span = slice(length - valid, None) if side == "left" else slice(valid)
            ids[row, span] = draw_text(architecture, pad, valid, row)
            mask[row, span] = 1
        batches.append(TextBatch(ids, mask))
    return batches


def compare(
    session: Any,
    batches: Sequence[TextBatch],
    references: References,
    outputs: Sequence[OutputCard],
    tick: Tick = ignore,
) -> Proof:
    """Run the graph on the batches and measure its differences from the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        batches: their texts were requested from ``references``.
        references: of the model.
        outputs: of the graph.
        tick: receives the progress.
    """
    names = [card.name for card in outputs]
    differences = Differences(names)
    for done, batch in enumerate(batches):
        tick(done / len(batches))
        feeds = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        results = session.run(names, feeds)
        for row, (ids, valid) in enumerate(batch.rows()):
            reference = references.get(ids)
            exact, rounded = reference.exact, reference.rounded
            for card, result in zip(outputs, results, strict=True):
                differences.add(
                    card.name,
                    _of_row(result[row], valid, card),
                    _pooled(exact, card),
                    _pooled(rounded, card),
                )
    return differences.proof(len(batches))


def _of_row(values: Array, valid: Array, card: OutputCard) -> Array:
    """One row's values of an output, in the form of ``_pooled``.

    Args:
        values: [tokens, hidden], [hidden], or [tokens] of what tuning adds.
        valid: bool [tokens].
        card: of the output.
    """
    place = added_place(card)
    if place is not None:
        return lengths(values[valid])
    row: Array = values[valid] if values.ndim == 2 else values
    return row


def added_place(card: OutputCard) -> Place | None:
    """The matrix whose change the output is about, or None."""
    if card.kind not in ADDED_KINDS:
        return None
    return card.layer - 1, ADDED_KINDS.index(card.kind)


def lengths(logarithms: Array) -> Array:
    """|dW x| from its logarithm: a vector whose rounding its largest element determines."""
    found: Array = np.exp(logarithms.astype(np.float64))
    return found


def _pooled(reference: ModelOutputs, card: OutputCard) -> Array:
    """The expected value of an output: [hidden], [tokens, hidden] for states, or [tokens]."""
    place = added_place(card)
    if place is not None:
        return reference.added[place]
    states: Array
    if card.kind == "mlp_mean":
        states = reference.mlp[card.layer - 1]
    elif card.kind.startswith("final_norm"):
        states = reference.normed
    else:
        states = reference.states[card.layer]
    pooled: Array = states
    if card.kind.endswith("last"):
        pooled = states[-1]
    elif card.kind.endswith("mean"):
        pooled = states.mean(0, dtype=np.float64)
    return pooled
