"""The analysis graph: every layer's logits at the last token, with a gate on every block.

The logits of a state are what the model gives if the state replaces its last one: final norm,
unembedding, scale and soft-cap are the model's own. They come from a second forward pass in which
the blocks only return the states, so nothing here depends on where a model has those parts.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter.graph.pooling import Pooling
from layerguard.exporter.graph.recording import (
    input_states,
    output_states,
    recording,
    replaced_forward,
    with_states,
)
from layerguard.exporter.graph.spec import GraphInput, GraphSpec, text_inputs
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.analysis import compare_lens, make_gated_batches, reference_lens
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError


def analysis_graph(
    loaded: LoadedModel, architecture: Architecture, layers: int, pad: int, tick: Tick = ignore
) -> GraphSpec:
    """The analysis graph; its reference logits are computed in PyTorch.

    Args:
        loaded: a decoder with its head, in float32.
        architecture: of its backbone.
        layers: number of blocks that the bundle keeps.
        pad: token id that fills short rows.
        tick: receives the progress of the reference run.

    Raises:
        ExportError: the model has no language-model head, or not all blocks are kept.
    """
    if loaded.causal is None:
        raise ExportError(
            f"{type(loaded.model).__name__} has no language-model head in its checkpoint; the "
            "analysis graph expected a causal model. Export one, or export without --analysis"
        )
    if layers < architecture.layers:
        raise ExportError(
            f"layers {layers}: the analysis graph needs the head and expected all "
            f"{architecture.layers} blocks. Export one bundle with --analysis and all layers, and "
            "another with fewer"
        )
    batches = make_gated_batches(architecture, pad)
    expected = reference_lens(architecture, loaded.causal, batches, tick)
    return GraphSpec(
        mode="analysis",
        module=AnalysisModule(architecture, loaded.causal),
        inputs=(*text_inputs(), *_gate_inputs(architecture)),
        outputs=tuple(OutputCard(f"lens_{i:02}", "lens", i) for i in range(layers + 1)),
        prove=partial(compare_lens, batches=batches, expected=expected),
    )


def _gate_inputs(architecture: Architecture) -> tuple[GraphInput, GraphInput]:
    """``bypass`` bool [batch, L] and ``keep`` float32 [batch, L, hidden]."""
    bypass = torch.zeros(2, architecture.layers, dtype=torch.bool)
    keep = torch.ones(2, architecture.layers, architecture.width)
    axes = {0: "batch"}
    return GraphInput("bypass", bypass, axes), GraphInput("keep", keep, axes)


class AnalysisModule(nn.Module):
    """A decoder and its head as a module that returns each layer's logits."""

    def __init__(self, architecture: Architecture, model: PreTrainedModel) -> None:
        """Take a backbone and the language model that contains it."""
        super().__init__()
        self.model = model
        self._architecture = architecture

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, bypass: Tensor, keep: Tensor
    ) -> tuple[Tensor, ...]:
        """Run the model with gates.

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: int64 [batch, tokens], 1 where a token is valid.
            bypass: bool [batch, L]; if true, the output of a block is its input.
            keep: float32 [batch, L, hidden]; factors of the block's output.

        Returns:
            float32 [batch, vocabulary] for states 0..L, at each row's last valid token.
        """
        blocks = self._architecture.blocks
        arguments = self._architecture.arguments(input_ids, attention_mask)
        with gated(blocks, bypass, keep) as outputs, recording(blocks) as recorded:
            self._architecture.model(**arguments)
        pool = Pooling(attention_mask)
        last = [pool.last(state).to(state.dtype).unsqueeze(1) for state in recorded.states]
        # one batch of one-token texts for all states, so that the head's weights are read once
        one_token = (value[:, :1].repeat(len(last), 1) for value in (input_ids, attention_mask))
        with _returning(blocks, [with_states(output, torch.cat(last)) for output in outputs]):
            run = self.model(**self._architecture.arguments(*one_token), return_dict=True)
        logits: Tensor = run.logits[:, -1].to(torch.float32)
        return logits.chunk(len(last))


@contextmanager
def gated(blocks: Sequence[nn.Module], bypass: Tensor, keep: Tensor) -> Iterator[list[Any]]:
    """Apply the gates to the blocks' outputs; yields a list that fills with the gated outputs."""
    outputs: list[Any] = []

    def gate(index: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            before, after = input_states(inputs, named), output_states(output)
            states = torch.where(bypass[:, index, None, None], before, after)
            changed = with_states(output, states * keep[:, index, None].to(states.dtype))
            outputs.append(changed)
            return changed

        return hook

    with ExitStack() as hooks:
        for index, block in enumerate(blocks):
            hooks.enter_context(block.register_forward_hook(gate(index), with_kwargs=True))
        yield outputs


@contextmanager
def _returning(blocks: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Make the blocks return these outputs for any input."""
    with ExitStack() as changes:
        for block, output in zip(blocks, outputs, strict=True):
            changes.enter_context(replaced_forward(block, lambda *_, output=output, **__: output))
        yield
