"""The proof of an analysis graph: each layer's logits against the model in PyTorch.

The reference takes another road than the graph: for the logits of state l it is the untouched
model's own forward pass, with eager attention, one unpadded row at a time, in which hooks skip all
blocks above l and apply the gates to the others. With open gates and l = L no hook changes anything
and the logits are the model's own.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter.graph.experts import plain_experts
from layerguard.exporter.graph.recording import first, read_by, replaced
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.comparison import Comparison, Differences
from layerguard.exporter.proof.reference import eager, float64
from layerguard.exporter.proof.score import Case, make_cases
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

    def rows(self) -> list[tuple[Array, Array, Array]]:
        """Each row's valid ids, its ``bypass`` [L] and its ``keep`` [L, hidden]."""
        texts = [ids for ids, _ in self.case.rows()]
        return list(zip(texts, self.bypass, self.keep, strict=True))


def make_gated_cases(architecture: Architecture, pad: int) -> list[GatedCase]:
    """The smaller batches of the score graph's proof, in turn with random gates and open ones."""
    rng = np.random.default_rng(0)
    cases = []
    small = [c for c in make_cases(architecture, pad) if c.input_ids.size <= _MOST_TOKENS]
    for number, case in enumerate(small):
        bypass = np.zeros((len(case.input_ids), architecture.layers), bool)
        keep = np.ones((*bypass.shape, architecture.width), np.float32)
        if number % 2 == 0:
            bypass = rng.random(bypass.shape) < 0.25
            keep = rng.choice(np.array([0, 0.5, 1], np.float32), keep.shape)
        cases.append(GatedCase(case, bypass, keep))
    return cases


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """What the logits of one row should be: of states 0..L, [vocabulary] each.

    Attributes:
        exact: in float64.
        rounded: in float32.
    """

    exact: Sequence[Array]
    rounded: Sequence[Array]


def reference_lens(
    architecture: Architecture,
    model: PreTrainedModel,
    cases: Sequence[GatedCase],
    tick: Tick = ignore,
) -> list[list[Lens]]:
    """What the logits should be, by case and row.

    Args:
        architecture: of the backbone.
        model: the causal model around it.
        cases: whose rows to run.
        tick: told how much is done.
    """
    done, whole = 0, 3 * sum(len(case.bypass) for case in cases)

    def run(times: int) -> list[list[list[Array]]]:
        nonlocal done
        found: list[list[list[Array]]] = []
        for case in cases:
            found.append([])
            for row in case.rows():
                found[-1].append(_row(architecture.blocks, model, *row))
                done += times
                tick(done / whole)
        return found

    with eager(architecture.model), plain_experts(model):
        rounded = run(1)
        with float64(model):
            exact = run(2)  # takes twice as long
    return [list(map(Lens, *rows)) for rows in zip(exact, rounded, strict=True)]


def compare_lens(
    session: Any,
    cases: Sequence[GatedCase],
    expected: Sequence[Sequence[Lens]],
    tick: Tick = ignore,
) -> Comparison:
    """Run the graph over the cases and measure it against the reference."""
    names = [output.name for output in session.get_outputs()]
    differences = Differences(names)
    for done, (gated, rows) in enumerate(zip(cases, expected, strict=True)):
        tick(done / len(cases))
        values = session.run(names, gated.feeds())
        for number, row in enumerate(rows):
            for name, found, exact, rounded in zip(
                names, values, row.exact, row.rounded, strict=True
            ):
                differences.add(name, found[number], exact, rounded)
    return differences.comparison(len(cases))


@torch.inference_mode()
def _row(
    blocks: Sequence[nn.Module], model: PreTrainedModel, ids: Array, bypass: Array, keep: Array
) -> list[Array]:
    tokens, gates = torch.from_numpy(ids[None]), torch.from_numpy(keep)
    logits: list[Array] = []
    samples: list[Any] = []
    takes = inspect.signature(model.forward).parameters
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    # the deepest first, in which every block runs and shows what it returns
    for depth in range(len(blocks), -1, -1):
        with _cut(blocks, depth, bypass, gates, samples):
            run = model(input_ids=tokens, return_dict=True, **only_last)
        logits.append(run.logits[0, -1].numpy().copy())
    return logits[::-1]


@contextmanager
def _cut(
    blocks: Sequence[nn.Module], depth: int, bypass: Array, keep: Tensor, samples: list[Any]
) -> Iterator[None]:
    """Blocks above ``depth`` hand on what they are given; the gates apply to the others.

    Args:
        blocks: of the model.
        depth: how many of them run.
        bypass: bool [L].
        keep: [L, hidden].
        samples: what each block returned when all of them ran, which fills it.
    """

    def gate(number: int) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if len(samples) == number:
                samples.append(output)
            states = read_by(given, named) if bypass[number] else first(output)
            return replaced(output, states * keep[number])

        return hook

    def skip(number: int) -> Any:
        def forward(*given: Any, **named: Any) -> Any:
            return replaced(samples[number], read_by(given, named))

        return forward

    with ExitStack() as held:
        for number, block in enumerate(blocks):
            if number < depth:
                handle = block.register_forward_hook(gate(number), with_kwargs=True)
                held.callback(handle.remove)
            else:
                held.enter_context(_instead(block, skip(number)))
        yield


@contextmanager
def _instead(block: nn.Module, forward: Any) -> Iterator[None]:
    """The block does ``forward`` and not its own."""
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
