"""The export check of an analysis graph: each layer's logits against the model in PyTorch.

The reference is computed in another way than the graph. The logits of state l are those of the
model's own forward pass, with eager attention and one unpadded row at a time, in which hooks skip
all blocks above l and apply the gates to the others. With open gates and l = L the logits are those
of the unchanged model.
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

from layerguard.exporter.graph.experts import eager_experts
from layerguard.exporter.graph.recording import (
    input_states,
    output_states,
    replaced_forward,
    with_states,
)
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.differences import Differences, Proof
from layerguard.exporter.proof.reference import eager, float64
from layerguard.exporter.proof.score import TextBatch, make_batches
from layerguard.runtime.types import Array

_MOST_TOKENS = 64
"""Largest batch in tokens, because a row takes L + 1 forward passes."""


@dataclass(frozen=True, slots=True, eq=False)
class GatedBatch:
    """A batch and its gates: ``bypass`` bool [batch, L], ``keep`` float32 [batch, L, hidden]."""

    texts: TextBatch
    bypass: Array
    keep: Array

    def feeds(self) -> dict[str, Array]:
        """The inputs of the graph."""
        return {
            "input_ids": self.texts.input_ids,
            "attention_mask": self.texts.attention_mask,
            "bypass": self.bypass,
            "keep": self.keep,
        }

    def rows(self) -> list[tuple[Array, Array, Array]]:
        """The valid ids, ``bypass`` [L] and ``keep`` [L, hidden] of each row."""
        texts = [ids for ids, _ in self.texts.rows()]
        return list(zip(texts, self.bypass, self.keep, strict=True))


def make_gated_batches(architecture: Architecture, pad: int) -> list[GatedBatch]:
    """The smaller batches of the score graph's check, alternately with random and open gates."""
    rng = np.random.default_rng(0)
    batches = []
    small = [b for b in make_batches(architecture, pad) if b.input_ids.size <= _MOST_TOKENS]
    for number, texts in enumerate(small):
        bypass = np.zeros((len(texts.input_ids), architecture.layers), bool)
        keep = np.ones((*bypass.shape, architecture.width), np.float32)
        if number % 2 == 0:
            bypass = rng.random(bypass.shape) < 0.25
            keep = rng.choice(np.array([0, 0.5, 1], np.float32), keep.shape)
        batches.append(GatedBatch(texts, bypass, keep))
    return batches


@dataclass(frozen=True, slots=True, eq=False)
class LensReference:
    """The expected logits of one row for states 0..L, [vocabulary] each.

    Attributes:
        exact: in float64.
        rounded: in float32.
    """

    exact: Sequence[Array]
    rounded: Sequence[Array]


def reference_lens(
    architecture: Architecture,
    model: PreTrainedModel,
    batches: Sequence[GatedBatch],
    tick: Tick = ignore,
) -> list[list[LensReference]]:
    """The expected logits by batch and row.

    Args:
        architecture: of the backbone.
        model: the language model that contains the backbone.
        batches: the rows to run.
        tick: receives the progress.
    """
    done, whole = 0, 3 * sum(len(batch.bypass) for batch in batches)

    def run(times: int) -> list[list[list[Array]]]:
        nonlocal done
        logits: list[list[list[Array]]] = []
        for batch in batches:
            logits.append([])
            for row in batch.rows():
                logits[-1].append(_row(architecture.blocks, model, *row))
                done += times
                tick(done / whole)
        return logits

    with eager(architecture.model), eager_experts(model):
        rounded = run(1)
        with float64(model):
            exact = run(2)  # takes twice as long
    return [list(map(LensReference, *rows)) for rows in zip(exact, rounded, strict=True)]


def compare_lens(
    session: Any,
    batches: Sequence[GatedBatch],
    expected: Sequence[Sequence[LensReference]],
    tick: Tick = ignore,
) -> Proof:
    """Run the graph on the batches and measure its differences from the reference."""
    names = [output.name for output in session.get_outputs()]
    differences = Differences(names)
    for done, (batch, rows) in enumerate(zip(batches, expected, strict=True)):
        tick(done / len(batches))
        results = session.run(names, batch.feeds())
        for row, reference in enumerate(rows):
            for name, result, exact, rounded in zip(
                names, results, reference.exact, reference.rounded, strict=True
            ):
                differences.add(name, result[row], exact, rounded)
    return differences.proof(len(batches))


@torch.inference_mode()
def _row(
    blocks: Sequence[nn.Module], model: PreTrainedModel, ids: Array, bypass: Array, keep: Array
) -> list[Array]:
    tokens, gates = torch.from_numpy(ids[None]), torch.from_numpy(keep)
    logits: list[Array] = []
    samples: list[Any] = []
    parameters = inspect.signature(model.forward).parameters
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
    # the greatest depth first, to record an output of every block
    for depth in range(len(blocks), -1, -1):
        with _cut(blocks, depth, bypass, gates, samples):
            run = model(input_ids=tokens, return_dict=True, **only_last)
        logits.append(run.logits[0, -1].numpy().copy())
    return logits[::-1]


@contextmanager
def _cut(
    blocks: Sequence[nn.Module], depth: int, bypass: Array, keep: Tensor, samples: list[Any]
) -> Iterator[None]:
    """Skip the blocks above ``depth`` and apply the gates to the others.

    Args:
        blocks: of the model.
        depth: number of blocks that run.
        bypass: bool [L].
        keep: [L, hidden].
        samples: an output of each block; filled by the first run, with the greatest depth.
    """

    def gate(index: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if len(samples) == index:
                samples.append(output)
            states = input_states(inputs, named) if bypass[index] else output_states(output)
            return with_states(output, states * keep[index])

        return hook

    def skip(index: int) -> Any:
        def forward(*inputs: Any, **named: Any) -> Any:
            return with_states(samples[index], input_states(inputs, named))

        return forward

    with ExitStack() as changes:
        for index, block in enumerate(blocks):
            if index < depth:
                hook = block.register_forward_hook(gate(index), with_kwargs=True)
                changes.enter_context(hook)
            else:
                changes.enter_context(replaced_forward(block, skip(index)))
        yield
