"""The analysis graph: every layer's logits at the last token, with a gate on every block.

A state's logits are what the model itself would say if the state were its last: its own final norm,
unembedding, scale and soft-cap. They are had by running the whole model once more with blocks that
do nothing but hand on the states, so nothing here knows where a model keeps those parts.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter.graph.part import GraphInput, Part, text_inputs
from layerguard.exporter.graph.recording import first, read_by, recording, replaced
from layerguard.exporter.graph.wrapper import Pooling
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.proof.analysis import compare_lens, make_gated_cases, reference_lens
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError


def analysis_part(
    loaded: Loaded, architecture: Architecture, layers: int, pad: int, tick: Tick = ignore
) -> Part:
    """The analysis graph; the model is run in PyTorch for the proof.

    Args:
        loaded: a decoder with its head, in float32.
        architecture: of its backbone.
        layers: how many blocks the bundle keeps.
        pad: token id that fills short rows.
        tick: told how much of the run is done.

    Raises:
        ExportError: the model has no language-model head, or blocks are cut.
    """
    if loaded.causal is None:
        raise ExportError(
            f"{type(loaded.model).__name__} has no language-model head in its checkpoint; the "
            "analysis graph gives each layer's logits. Expected a causal model, or export without "
            "--analysis"
        )
    if layers < architecture.layers:
        raise ExportError(
            f"layers {layers}: the analysis graph reads all {architecture.layers} blocks and the "
            "head above them; export with --analysis and all layers, and another bundle with fewer"
        )
    cases = make_gated_cases(architecture, pad)
    expected = reference_lens(architecture, loaded.causal, cases, tick)
    return Part(
        mode="analysis",
        module=AnalysisReader(architecture, loaded.causal),
        inputs=(*text_inputs(), *_gate_inputs(architecture)),
        outputs=tuple(OutputCard(f"lens_{i:02}", "lens", i) for i in range(layers + 1)),
        prove=partial(compare_lens, cases=cases, expected=expected),
    )


def _gate_inputs(architecture: Architecture) -> tuple[GraphInput, GraphInput]:
    """``bypass`` bool [batch, L] and ``keep`` float32 [batch, L, hidden]."""
    bypass = torch.zeros(2, architecture.layers, dtype=torch.bool)
    keep = torch.ones(2, architecture.layers, architecture.width)
    axes = {0: "batch"}
    return GraphInput("bypass", bypass, axes), GraphInput("keep", keep, axes)


class AnalysisReader(nn.Module):
    """A decoder and its head as a module whose forward returns each layer's logits."""

    def __init__(self, architecture: Architecture, model: PreTrainedModel) -> None:
        """Take a backbone and the causal model around it."""
        super().__init__()
        self.model = model
        self._architecture = architecture

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, bypass: Tensor, keep: Tensor
    ) -> tuple[Tensor, ...]:
        """Run the model under gates.

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: int64 [batch, tokens], 1 where a token is valid.
            bypass: bool [batch, L]; where true, a block's output is its input.
            keep: float32 [batch, L, hidden]; multiplies the block's output.

        Returns:
            float32 [batch, vocabulary] for states 0..L, at each row's last valid token.
        """
        blocks = self._architecture.blocks
        arguments = self._architecture.arguments(input_ids, attention_mask)
        with gated(blocks, bypass, keep) as outputs, recording(blocks) as seen:
            self._architecture.model(**arguments)
        pool = Pooling(attention_mask)
        last = [pool.last(state).to(state.dtype).unsqueeze(1) for state in seen.states]
        # all states as one batch of one-token texts, so that the head is read once
        one_token = (given[:, :1].repeat(len(last), 1) for given in (input_ids, attention_mask))
        with _handing_on(blocks, [replaced(output, torch.cat(last)) for output in outputs]):
            run = self.model(**self._architecture.arguments(*one_token), return_dict=True)
        logits: Tensor = run.logits[:, -1].to(torch.float32)
        return logits.chunk(len(last))


@contextmanager
def gated(blocks: Sequence[nn.Module], bypass: Tensor, keep: Tensor) -> Iterator[list[Any]]:
    """Put the gates behind the blocks; yields what each block returned, once it ran."""
    outputs: list[Any] = []

    def gate(place: int) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            states = first(output)
            states = torch.where(bypass[:, place, None, None], read_by(given, named), states)
            changed = replaced(output, states * keep[:, place, None].to(states.dtype))
            outputs.append(changed)
            return changed

        return hook

    with ExitStack() as held:
        for place, block in enumerate(blocks):
            handle = block.register_forward_hook(gate(place), with_kwargs=True)
            held.callback(handle.remove)
        yield outputs


@contextmanager
def _handing_on(blocks: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Blocks that return these outputs, whatever they are given."""
    with ExitStack() as held:
        for block, output in zip(blocks, outputs, strict=True):
            block.forward = lambda *_, output=output, **__: output
            held.callback(block.__delattr__, "forward")
        yield
