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
import torch
from transformers import PreTrainedModel

from layerguard.exporter.architecture import Architecture
from layerguard.exporter.cached_attention import NewEntries
from layerguard.exporter.comparison import Comparison, Differences
from layerguard.exporter.parity import LONGEST, Case, eager, observe
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.types import Array

_SCHEDULES: Sequence[tuple[int, tuple[int, ...], int]] = (
    (1, (1,), 0), (1, (5, 1, 1, 3, 2), 0), (2, (9, 1, 4, 1, 1, 3), 2), (3, (16, 5), 3),
)  # fmt: skip
"""Rows, chunks, and unused places behind each chunk. Beside these, one row as long as the model
takes: half of it, single tokens, the rest."""
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

    @property
    def ends(self) -> list[int]:
        """The last token of each chunk: those whose logits the graph gives."""
        return [int(end) - 1 for end in np.cumsum(self.chunks)]


def make_continued(architecture: Architecture) -> list[Continued]:
    """Batches of random tokens over the schedules above."""
    rng = np.random.default_rng(0)
    most = min(architecture.max_positions or LONGEST, LONGEST)
    half = most // 2
    cases = []
    for rows, chunks, unused in (*_SCHEDULES, (1, (half, 1, 1, most - half - 2), 0)):
        tokens = sum(chunks)
        ids = rng.integers(0, architecture.vocabulary, (rows, tokens))
        mask = np.ones_like(ids)
        for row in range(1, rows):
            mask[row, : rng.integers(1, chunks[0])] = 0
        cases.append(Continued(Case(ids, mask), chunks, unused))
    return cases


def reference_continued(
    architecture: Architecture,
    causal: PreTrainedModel | None,
    cases: Sequence[Continued],
    outputs: Sequence[OutputCard],
) -> list[list[list[Array]]]:
    """What each output should be, by case, row and output: float64 [tokens, values].

    Logits are [chunks, vocabulary], of each chunk's last token.

    Raises:
        ExportError: the model does not give one hidden state more than it has blocks.
    """
    with eager(architecture.model):
        return [
            [_row(architecture, causal, ids, ends, outputs) for ids, ends in _rows(case)]
            for case in cases
        ]


def compare_continued(
    session: Any,
    cases: Sequence[Continued],
    expected: Sequence[Sequence[Sequence[Array]]],
    outputs: Sequence[OutputCard],
) -> Comparison:
    """Let the graph continue the texts and measure it against the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        cases: as ``reference_continued`` was given.
        expected: what ``reference_continued`` returned.
        outputs: as ``reference_continued`` was given.
    """
    differences = Differences([card.name for card in outputs])
    for case, rows in zip(cases, expected, strict=True):
        found = continue_texts(session, case)
        for number, (_, valid) in enumerate(case.texts.rows()):
            for card, theirs in zip(outputs, rows[number], strict=True):
                mine = found[card.name][number]
                mine = mine if card.kind == "logits" else mine[valid]
                differences.add(card.name, mine, theirs)
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


def _rows(case: Continued) -> list[tuple[Array, list[int]]]:
    """Each row's valid ids, and the chunks' ends counted in them."""
    tokens = case.texts.input_ids.shape[1]
    return [(ids, [end - tokens + len(ids) for end in case.ends]) for ids, _ in case.texts.rows()]


def _row(
    architecture: Architecture,
    causal: PreTrainedModel | None,
    ids: Array,
    ends: list[int],
    outputs: Sequence[OutputCard],
) -> list[Array]:
    """The outputs for one unpadded text, float64."""
    entries = NewEntries()
    seen = observe(architecture, ids, causal=causal, past_key_values=entries, use_cache=True)
    give: dict[str, Any] = {
        "logits": lambda _: seen.output.logits[0, ends].to(torch.float64).numpy(),
        "state": lambda layer: seen.states[layer],
        "final_norm": lambda _: seen.normed,
        "key": lambda layer: _flat(entries.of[layer - 1][0]),
        "value": lambda layer: _flat(entries.of[layer - 1][1]),
    }
    return [give[card.kind](card.layer) for card in outputs]


def _flat(entries: torch.Tensor) -> Array:
    """[1, kv_heads, tokens, head_dim] -> float64 [tokens, kv_heads * head_dim]."""
    return entries[0].transpose(0, 1).flatten(1).to(torch.float64).numpy()
