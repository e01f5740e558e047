"""The export check of a decode graph: texts in chunks against whole texts in PyTorch.

The reference reads each text at once, alone and unpadded, with eager attention and no cache. The
graph starts with an empty cache and reads chunks of several rows, padded on the left, with masked
slots of random numbers in the cache. This checks the cache, masks, attention windows and positions
together, up to 512 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.differences import Differences, Proof
from layerguard.exporter.proof.reference import ModelOutputs, References
from layerguard.exporter.proof.score import TextBatch, added_place, draw_text, lengths, longest
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.types import Array

_SCHEDULES: Sequence[tuple[int, tuple[int, ...], int]] = (
    (1, (1,), 0), (1, (3, 1, 1, 2), 0), (2, (8, 1, 4, 1, 1, 2), 2), (3, (12, 5), 3),
)  # fmt: skip
"""Rows, chunk lengths, and masked slots after each chunk. Lengths are those of the score graph's
batches, so the texts are the same. A further row has the greatest length: half of it, then single
tokens, then the rest."""
_NOISE = 1e4
"""Scale of the random numbers in masked slots."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkedBatch:
    """A batch that is read in chunks.

    Attributes:
        texts: the whole texts, padded on the left within the first chunk.
        chunks: number of tokens of each call.
        unused: number of masked slots in the cache after each chunk.
    """

    texts: TextBatch
    chunks: tuple[int, ...]
    unused: int

    def rows(self) -> list[tuple[Array, list[int]]]:
        """For each row, the valid ids and the index of each chunk's last token, for its logits."""
        tokens = self.texts.input_ids.shape[1]
        ends = [int(end) - 1 for end in np.cumsum(self.chunks)]
        return [(ids, [end - tokens + len(ids) for end in ends]) for ids, _ in self.texts.rows()]


def make_chunked_batches(architecture: Architecture, pad: int) -> list[ChunkedBatch]:
    """Batches of random tokens by the schedules above."""
    most = longest(architecture)
    half = most // 2
    batches = []
    schedules = [schedule for schedule in _SCHEDULES if sum(schedule[1]) <= most]
    for rows, chunks, unused in (*schedules, (1, (half, 1, 1, most - half - 2), 0)):
        tokens = sum(chunks)
        rng = np.random.default_rng([rows, tokens])
        ids = np.full((rows, tokens), pad, np.int64)
        mask = np.zeros_like(ids)
        for row in range(rows):
            first = int(rng.integers(1, chunks[0])) if row else 0
            ids[row, first:] = draw_text(architecture, pad, tokens - first, row)
            mask[row, first:] = 1
        batches.append(ChunkedBatch(TextBatch(ids, mask), chunks, unused))
    return batches


def compare_chunked(
    session: Any,
    batches: Sequence[ChunkedBatch],
    references: References,
    outputs: Sequence[OutputCard],
    tick: Tick = ignore,
) -> Proof:
    """Run the graph on the batches and measure its differences from the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        batches: their texts and chunk ends were requested from ``references``.
        references: of the model.
        outputs: of the graph.
        tick: receives the progress.
    """
    differences = Differences([card.name for card in outputs])
    for done, batch in enumerate(batches):
        tick(done / len(batches))
        results = run_in_chunks(session, batch)
        for row, ((ids, ends), (_, valid)) in enumerate(
            zip(batch.rows(), batch.texts.rows(), strict=True)
        ):
            reference = references.get(ids)
            for card in outputs:
                values = results[card.name][row]
                values = values if card.kind == "logits" else values[valid]
                values = lengths(values) if added_place(card) else values
                exact, rounded = (
                    _output(run, card, ends) for run in (reference.exact, reference.rounded)
                )
                differences.add(card.name, values, exact, rounded)
    return differences.proof(len(batches))


def run_in_chunks(session: Any, batch: ChunkedBatch) -> dict[str, Array]:
    """All outputs for the whole texts, [rows, tokens, values]; logits [rows, chunks, vocabulary].

    Like a caller in production, it keeps buffers of keys and values and appends new entries.
    """
    rng = np.random.default_rng(1)
    rows, tokens = batch.texts.input_ids.shape
    capacity = tokens + batch.unused * len(batch.chunks)
    names = [output.name for output in session.get_outputs()]
    shapes = {item.name: item.shape for item in session.get_inputs()}
    dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    buffers = {
        item.name: rng.normal(0, _NOISE, (rows, item.shape[1], capacity, item.shape[3])).astype(
            dtypes[item.type]
        )
        for item in session.get_inputs()
        if item.name.startswith("past_")
    }
    blocks, _, width = shapes["steering"]
    steering = np.zeros((blocks, 1, width), np.float32)
    mask = np.zeros((rows, capacity), np.int64)
    parts: dict[str, list[Array]] = {name: [] for name in names}
    filled = start = 0
    for chunk in batch.chunks:
        ids = batch.texts.input_ids[:, start : start + chunk]
        valid = batch.texts.attention_mask[:, start : start + chunk]
        past = capacity if batch.unused else filled
        feeds = {
            "input_ids": ids,
            "attention_mask": np.concatenate([mask[:, :past], valid], 1),
            "steering": steering,
            **{name: np.ascontiguousarray(slots[:, :, :past]) for name, slots in buffers.items()},
        }
        for name, value in zip(names, session.run(names, feeds), strict=True):
            if f"past_{name}" in buffers:
                buffers[f"past_{name}"][:, :, filled : filled + chunk] = value
                parts[name].append(value.swapaxes(1, 2).reshape(rows, chunk, -1))
            else:
                parts[name].append(value[:, None] if name == "logits" else value)
        mask[:, filled : filled + chunk] = valid
        filled += chunk + batch.unused
        start += chunk
    return {name: np.concatenate(values, 1) for name, values in parts.items()}


def _output(reference: ModelOutputs, card: OutputCard, ends: Sequence[int]) -> Array:
    """The expected value of an output, [tokens, values]; logits [chunks, vocabulary]."""
    if card.kind == "logits":
        return np.stack([reference.logits[end] for end in ends])
    if card.kind in ("key", "value"):
        return reference.entries[card.layer - 1][card.kind == "value"]
    place = added_place(card)
    if place is not None:
        return reference.added[place]
    return reference.normed if card.kind == "final_norm" else reference.states[card.layer]
