"""The decode graph: continues a text whose earlier tokens are in a cache that the caller keeps.

Its states can be steered: the components along given directions are removed from a block's output.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter.graph.added import adding
from layerguard.exporter.graph.cached_attention import (
    CacheSlots,
    Entry,
    RecordingCache,
    cached_attention,
)
from layerguard.exporter.graph.convert import first_line
from layerguard.exporter.graph.outputs import decode_outputs
from layerguard.exporter.graph.recording import output_states, recording, with_states
from layerguard.exporter.graph.spec import GraphInput, GraphSpec
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.changes import Change
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.proof.decode import compare_chunked, make_chunked_batches
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.tolerance import Dtype
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError


def decode_graph(
    loaded: LoadedModel,
    architecture: Architecture,
    layers: int,
    dtype: Dtype,
    pad: int,
    references: References,
    changes: Sequence[Change] = (),
) -> GraphSpec:
    """The decode graph of the first ``layers`` blocks; requests its test texts from ``references``.

    Args:
        loaded: a decoder in float32; without a head the graph has no logits.
        architecture: of its backbone.
        layers: number of blocks, 1 to all; with fewer than all the graph has no logits and no
            final norm.
        dtype: of the graph; a float16 graph has a float16 cache.
        pad: token id that fills short rows.
        references: of the language model, or of the backbone if there is no head.
        changes: of the kept blocks, for what they add.

    Raises:
        ExportError: the model is not a decoder, or its attention cannot use the caller's cache.
    """
    model = type(architecture.model).__name__
    if architecture.kind != "decoder":
        raise ExportError(
            f"{model} is an encoder, whose states change with every further token; a decode graph "
            "expected a decoder. Export without it: --decode no"
        )
    if "position_ids" not in architecture.inputs:
        raise ExportError(
            f"{model} takes no position ids; a decode graph expected them, to continue a text. "
            "Export without it: --decode no"
        )
    if architecture.rope_switch is not None:
        raise ExportError(
            f"{model} uses other rotary frequencies for texts of more than "
            f"{architecture.rope_switch} tokens (rope_type 'longrope'), which makes the cache of a "
            "shorter text invalid; a decode graph expected one set of frequencies. Export with "
            f"--max-tokens {architecture.rope_switch}, or without it: --decode no"
        )
    whole = layers == architecture.layers
    causal = loaded.causal if whole else None
    outputs = decode_outputs(
        layers,
        final_norm=whole and architecture.final_norm,
        logits=causal is not None,
        changed=[change.place for change in changes],
    )
    module = DecodeModule(architecture, causal, outputs, changes)
    inputs = _inputs(architecture, layers, dtype)
    _try(module, inputs)
    batches = make_chunked_batches(architecture, pad)
    for batch in batches:
        for ids, ends in batch.rows():
            references.request(ids, ends)
    return GraphSpec(
        mode="decode",
        module=module,
        inputs=inputs,
        outputs=outputs,
        prove=partial(compare_chunked, batches=batches, references=references, outputs=outputs),
    )


def _inputs(architecture: Architecture, layers: int, dtype: Dtype) -> tuple[GraphInput, ...]:
    ids = torch.arange(6).reshape(2, 3)
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[0, 2] = 0
    steering = torch.zeros(layers, 4, architecture.width)
    cache_dtype = torch.float16 if dtype == "float16" else torch.float32
    cache = [
        GraphInput(
            f"past_{name}_{block:02}",
            torch.zeros(2, entry.shape[1], 5, entry.shape[3], dtype=cache_dtype),
            {0: "batch", 2: "past"},
        )
        for block, entries in enumerate(_entries(architecture)[:layers])
        for name, entry in zip(("key", "value"), entries, strict=True)
    ]
    return (
        GraphInput("input_ids", ids, {0: "batch", 1: "tokens"}),
        GraphInput("attention_mask", mask, {0: "batch", 1: "past + tokens"}),
        GraphInput("steering", steering, {1: "directions"}),
        *cache,
    )


@torch.inference_mode()
def _try(module: "DecodeModule", inputs: Sequence[GraphInput]) -> None:
    """Run the module once in PyTorch, so that errors appear before the trace."""
    try:
        # the weights are still float32
        module(
            *(
                item.example.float() if item.name.startswith("past_") else item.example
                for item in inputs
            )
        )
    except ExportError:
        raise
    except Exception as error:  # the model's own code may raise anything
        raise ExportError(
            f"{type(module.model).__name__} cannot use the caller's cache "
            f"({first_line(error)}); expected a model whose attention uses transformers' "
            "AttentionInterface. Export without a decode graph: --decode no"
        ) from error


@torch.inference_mode()
def _entries(architecture: Architecture) -> list[Entry]:
    """The keys and values that each block adds to a cache for one token.

    Raises:
        ExportError: a block adds nothing.
    """
    cache = RecordingCache()
    architecture.model(input_ids=torch.zeros(1, 1).long(), past_key_values=cache, use_cache=True)
    if cache.entries.keys() != set(range(architecture.layers)):
        raise ExportError(
            f"{type(architecture.model).__name__}: {len(cache.entries)} of {architecture.layers} "
            "blocks add keys and values to a cache; a decode graph expected all. Export without "
            "it: --decode no"
        )
    return [cache.entries[block] for block in range(architecture.layers)]


class DecodeModule(nn.Module):
    """A decoder as a module that continues a text and returns the outputs of a decode graph."""

    def __init__(
        self,
        architecture: Architecture,
        causal: PreTrainedModel | None,
        outputs: Sequence[OutputCard],
        changes: Sequence[Change] = (),
    ) -> None:
        super().__init__()
        self.model = causal or architecture.model
        self._architecture = architecture
        self._outputs = tuple(outputs)
        self._changes = tuple(changes)
        parameters = inspect.signature(self.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, steering: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """The outputs in order.

        Args:
            input_ids: int64 [batch, tokens], the new tokens.
            attention_mask: int64 [batch, past + tokens], 1 for valid slots.
            steering: float32 [kept blocks, m, hidden]; rows are orthonormal or zero.
            past: keys and values of each kept block in order, [batch, kv_heads, past, head_dim].
        """
        past_entries = list(zip(past[::2], past[1::2], strict=True))
        slots = CacheSlots(attention_mask, past[0].shape[2], input_ids.shape[1])
        cache = RecordingCache()
        model, blocks = self._architecture.model, self._architecture.blocks
        normed: list[Tensor] = []
        with (
            cached_attention(model, len(blocks), slots, past_entries),
            steered(blocks, steering),
            recording(blocks) as recorded,
            adding(self._changes) as added,
            model.register_forward_hook(
                lambda _, __, output: normed.append(output.last_hidden_state)
            ),
        ):
            run = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=slots.new + self._architecture.first_position,
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
                **self._last_only,
            )
        compute: Mapping[str, Callable[[int], Tensor]] = {
            "logits": lambda _: run.logits[:, -1].to(torch.float32),
            "state": lambda layer: recorded.states[layer],
            "final_norm": lambda _: normed[0],
            **added.by_kind(),
            "key": lambda layer: cache.entries[layer - 1][0],
            "value": lambda layer: cache.entries[layer - 1][1],
        }
        return tuple(compute[card.kind](card.layer) for card in self._outputs)


@contextmanager
def steered(blocks: Sequence[nn.Module], steering: Tensor) -> Iterator[None]:
    """Remove from each block's output its components along the directions.

    The next block reads the changed output. Zero rows leave the output bit-identical.

    Args:
        blocks: the first ones, as many as ``steering`` has, are steered.
        steering: float32 [blocks, m, hidden]; the rows of a block are orthonormal or zero.
    """
    with ExitStack() as hooks:
        for block, directions in zip(blocks, steering.unbind(0), strict=False):
            hooks.enter_context(block.register_forward_hook(_without(directions)))
        yield


def _without(directions: Tensor) -> Callable[..., Any]:
    """A forward hook that removes the components along the rows of [m, hidden]."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        states = output_states(output).to(torch.float32)
        rest = states - (states @ directions.T) @ directions
        return with_states(output, rest.to(output_states(output).dtype))

    return hook
