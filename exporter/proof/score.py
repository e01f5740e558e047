"""The proof of a score graph: the exported file against PyTorch, on shapes the trace never saw.

The graph reads padded batches with fused attention; the reference reads each text alone with eager
attention (``exporter/proof/reference.py``) and is pooled in float64 here. So padding on either
side, batching, positions, the cut and the pooling are all proved together. Not proved: rows
longer than 512 tokens, where windowed attention may lie beyond what was run. Where rotary
frequencies switch, however late, one row is a token longer than that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.comparison import Comparison, Differences
from layerguard.exporter.proof.reference import Observed, References
from layerguard.runtime.bundle.manifest import OutputCard
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


def longest(architecture: Architecture) -> int:
    """Tokens of the longest text that is compared."""
    return min(architecture.max_positions or LONGEST, LONGEST)


def draw_text(architecture: Architecture, pad: int, tokens: int, number: int) -> Array:
    """The text ``number`` of so many random tokens, int64 [tokens], none of them padding.

    The same arguments give the same text, so that graphs share what PyTorch gives for it.
    """
    rng = np.random.default_rng([tokens, number])
    drawn = rng.integers(0, architecture.vocabulary - 1, tokens)
    text: Array = drawn + (drawn >= pad)
    return text


def make_cases(architecture: Architecture, pad: int) -> list[Case]:
    """Batches of random tokens over the shapes above; the first row of each fills its length."""
    most = longest(architecture)
    shapes = [(rows, min(tokens, most), side) for rows, tokens, side in _SHAPES]
    shapes.append((1, most, "right"))
    if architecture.rope_switch:  # one row of either set of rotary frequencies, side by side
        shapes.append((2, architecture.rope_switch + 1, "left"))
    cases = []
    for batch, length, side in shapes:
        rng = np.random.default_rng([batch, length])
        lengths = [length, *rng.integers(1, length + 1, batch - 1).tolist()]
        ids = np.full((batch, length), pad, np.int64)
        mask = np.zeros((batch, length), np.int64)
        for row, valid in enumerate(lengths):
            place = slice(length - valid, None) if side == "left" else slice(valid)
            ids[row, place] = draw_text(architecture, pad, valid, row)
            mask[row, place] = 1
        cases.append(Case(ids, mask))
    return cases


def compare(
    session: Any,
    cases: Sequence[Case],
    references: References,
    outputs: Sequence[OutputCard],
    tick: Tick = ignore,
) -> Comparison:
    """Run the graph over the cases and measure it against the reference.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the written file.
        cases: whose texts were asked of ``references``.
        references: of the model.
        outputs: of the graph.
        tick: told how much is done.
    """
    names = [card.name for card in outputs]
    differences = Differences(names)
    for done, case in enumerate(cases):
        tick(done / len(cases))
        feeds = {"input_ids": case.input_ids, "attention_mask": case.attention_mask}
        values = session.run(names, feeds)
        for number, (ids, valid) in enumerate(case.rows()):
            expected = references.of(ids)
            for card, found in zip(outputs, values, strict=True):
                mine = found[number][valid] if found.ndim == 3 else found[number]
                differences.add(
                    card.name, mine, _pooled(expected.exact, card), _pooled(expected.rounded, card)
                )
    return differences.comparison(len(cases))


def _pooled(seen: Observed, card: OutputCard) -> Array:
    """What an output should be: [hidden], or [tokens, hidden] of states."""
    states: Array
    if card.kind == "mlp_mean":
        states = seen.mlp[card.layer - 1]
    elif card.kind.startswith("final_norm"):
        states = seen.normed
    else:
        states = seen.states[card.layer]
    pooled: Array = states
    if card.kind.endswith("last"):
        pooled = states[-1]
    elif card.kind.endswith("mean"):
        pooled = states.mean(0, dtype=np.float64)
    return pooled
