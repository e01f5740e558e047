"""The proof of a decode graph: texts continued chunk by chunk against the whole text in PyTorch.

The reference reads each text at once, alone and unpadded, with eager attention and no cache. The
graph reads it in chunks, from no past at all, rows of a batch beside each other, with padding in
front and unused places in the cache that hold numbers which must not matter. So the cache, the
masks, the windows and the positions are proved together, up to 512 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.comparison import Comparison, Differences
from layerguard.exporter.proof.reference import Observed, References
from layerguard.exporter.proof.score import Case, draw_text, longest
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.types import Array

_SCHEDULES: Sequence[tuple[int, tuple[int, ...], int]] = (
    (1, (1,), 0), (1, (3, 1, 1, 2), 0), (2, (8, 1, 4, 1, 1, 2), 2), (3, (12, 5), 3),
)  # fmt: skip
"""Rows, chunks, and unused places behind each chunk; lengths as in the score graph's batches, whose
texts are then the same. Beside these, one row as long as the model takes: half of it, single
tokens, the rest."""
_NOISE = 1e4
"""Scale of what unused places hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Continued:
    """A batch that is read in chunks.

    Attributes:
        texts: the whole texts, padded left within the first chunk.
        chunks: how many tokens each call reads.
        unused: places of the cache behind each chunk that stay masked.
    """

    texts: Case
    chunks: tuple[int, ...]
    unused: int

    def rows(self) -> list[tuple[Array, list[int]]]:
        """Each row's valid ids, and the last token of each chunk, whose logits the graph gives."""
        tokens = self.texts.input_ids.shape[1]
        ends = [int(end) - 1 for end in np.cumsum(self.chunks)]
        return [(ids, [end - tokens + len(ids) for end in ends]) for ids, _ in self.texts.rows()]


def make_continued(architecture: Architecture, pad: int) -> list[Continued]:
    """Batches of random tokens over the schedules above."""
    most = longest(architecture)
    half = most // 2
    cases = []
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
        cases.append(Continued(Case(ids, mask), chunks, unused))
    return cases


def compare_continued(
    session: Any,
    cases: Sequence[Continued],
    references: References,
    outputs: Sequence[OutputCard],
    tick: Tick = ignore,
) -> Comparison:
    """Let the graph continue the texts and measure it against the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        cases: whose texts and chunks' ends were asked of ``references``.
        references: of the model.
        outputs: of the graph.
        tick: told how much is done.
    """
    differences = Differences([card.name for card in outputs])
    for done, case in enumerate(cases):
        tick(done / len(cases))
        found = continue_texts(session, case)
        for number, ((ids, ends), (_, valid)) in enumerate(
            zip(case.rows(), case.texts.rows(), strict=True)
        ):
            expected = references.of(ids)
            for card in outputs:
                mine = found[card.name][number]
                mine = mine if card.kind == "logits" else mine[valid]
                exact, rounded = (
                    _output(seen, card, ends) for seen in (expected.exact, expected.rounded)
                )
                differences.add(card.name, mine, exact, rounded)
    return differences.comparison(len(cases))


def continue_texts(session: Any, case: Continued) -> dict[str, Array]:
    """All outputs over the whole texts, [rows, tokens, values]; logits [rows, chunks, vocabulary].

    What a host does: buffers for keys and values, new entries written behind the old ones.
    """
    rng = np.random.default_rng(1)
    rows, tokens = case.texts.input_ids.shape
    capacity = tokens + case.unused * len(case.chunks)
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
    place = start = 0
    for chunk in case.chunks:
        ids = case.texts.input_ids[:, start : start + chunk]
        valid = case.texts.attention_mask[:, start : start + chunk]
        past = capacity if case.unused else place
        feeds = {
            "input_ids": ids,
            "attention_mask": np.concatenate([mask[:, :past], valid], 1),
            "steering": steering,
            **{name: np.ascontiguousarray(kept[:, :, :past]) for name, kept in buffers.items()},
        }
        for name, value in zip(names, session.run(names, feeds), strict=True):
            if f"past_{name}" in buffers:
                buffers[f"past_{name}"][:, :, place : place + chunk] = value
                parts[name].append(value.swapaxes(1, 2).reshape(rows, chunk, -1))
            else:
                parts[name].append(value[:, None] if value.ndim == 2 else value)
        mask[:, place : place + chunk] = valid
        place += chunk + case.unused
        start += chunk
    return {name: np.concatenate(values, 1) for name, values in parts.items()}


def _output(seen: Observed, card: OutputCard, ends: Sequence[int]) -> Array:
    """What an output should be, [tokens, values]; logits [chunks, vocabulary]."""
    if card.kind == "logits":
        return np.stack([seen.logits[end] for end in ends])
    if card.kind in ("key", "value"):
        return seen.entries[card.layer - 1][card.kind == "value"]
    return seen.normed if card.kind == "final_norm" else seen.states[card.layer]
