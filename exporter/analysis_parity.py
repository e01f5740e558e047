"""The proof of an analysis graph: each layer's logits against the model in PyTorch.

The reference takes another road than the graph: for the logits of state l it is the untouched
model's own forward pass, with eager attention, one unpadded row at a time, in which hooks skip all
blocks above l and apply the gates to the others. With open gates and l = L no hook changes anything
and the logits are the model's own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from layerguard.exporter.architecture import Architecture
from layerguard.exporter.comparison import Comparison, Differences
from layerguard.exporter.parity import Case, eager, make_cases
from layerguard.exporter.recording import first, read_by, replaced
from layerguard.runtime.types import Array

_MOST_TOKENS = 64
"""Of one batch: a row takes L + 1 forward passes."""


@dataclass(frozen=True, slots=True, eq=False)
class GatedCase:
    """A batch and its gates: ``bypass`` bool [batch, L], ``keep`` float32 [batch, L, hidden]."""

    case: Case
    bypass: Array
    keep: Array

    def feeds(self) -> dict[str, Array]:
        """The inputs of the graph."""
        return {
            "input_ids": self.case.input_ids,
            "attention_mask": self.case.attention_mask,
            "bypass": self.bypass,
            "keep": self.keep,
        }


def make_gated_cases(architecture: Architecture, pad: int) -> list[GatedCase]:
    """The smaller batches of the score graph's proof, each with open gates and with random ones."""
    rng = np.random.default_rng(0)
    cases = []
    for case in make_cases(architecture, pad):
        if case.input_ids.size > _MOST_TOKENS:
            continue
        bypass = np.zeros((len(case.input_ids), architecture.layers), bool)
        keep = np.ones((*bypass.shape, architecture.width), np.float32)
        cases.append(GatedCase(case, bypass, keep))
        drawn = rng.choice(np.array([0, 0.5, 1], np.float32), keep.shape)
        cases.append(GatedCase(case, rng.random(bypass.shape) < 0.25, drawn))
    return cases


def reference_lens(
    architecture: Architecture, model: PreTrainedModel, cases: Sequence[GatedCase]
) -> list[list[list[Array]]]:
    """What the logits should be, by case, row and state 0..L: float64 [vocabulary]."""
    with eager(architecture.model):
        return [
            [
                _row(architecture.blocks, model, ids, bypass, keep)
                for (ids, _), bypass, keep in zip(
                    gated.case.rows(), gated.bypass, gated.keep, strict=True
                )
            ]
            for gated in cases
        ]


def compare_lens(
    session: Any, cases: Sequence[GatedCase], expected: Sequence[Sequence[Sequence[Array]]]
) -> Comparison:
    """Run the graph over the cases and measure it against the reference."""
    names = [output.name for output in session.get_outputs()]
    differences = Differences(names)
    for gated, rows in zip(cases, expected, strict=True):
        for index, found in enumerate(session.run(names, gated.feeds())):
            differences.add(names[index], found, np.stack([row[index] for row in rows]))
    return differences.comparison(len(cases))


@torch.inference_mode()
def _row(
    blocks: Sequence[nn.Module], model: PreTrainedModel, ids: Array, bypass: Array, keep: Array
) -> list[Array]:
    logits = []
    for depth in range(len(blocks) + 1):
        with _cut(blocks, depth, bypass, torch.from_numpy(keep)):
            run = model(input_ids=torch.from_numpy(ids[None]), return_dict=True)
        logits.append(run.logits[0, -1].to(torch.float64).numpy())
    return logits


@contextmanager
def _cut(
    blocks: Sequence[nn.Module], depth: int, bypass: Array, keep: torch.Tensor
) -> Iterator[None]:
    """Blocks above ``depth`` hand on what they are given; the gates apply to the others."""

    def hook_of(number: int) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if number >= depth:
                return replaced(output, read_by(given, named))
            skipped = bool(bypass[number])
            states = read_by(given, named) if skipped else first(output)
            return replaced(output, states * keep[number])

        return hook

    with ExitStack() as held:
        for number, block in enumerate(blocks):
            handle = block.register_forward_hook(hook_of(number), with_kwargs=True)
            held.callback(handle.remove)
        yield
