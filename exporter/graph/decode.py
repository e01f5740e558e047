"""The decode graph: further tokens of a text whose earlier ones are in a cache that the host keeps.

Its states can be steered: a block's output loses its components along given directions.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter.graph.cached_attention import Entry, NewEntries, Places, cached_attention
from layerguard.exporter.graph.convert import first_line
from layerguard.exporter.graph.outputs import plan_decode
from layerguard.exporter.graph.part import GraphInput, Part
from layerguard.exporter.graph.recording import first, recording, replaced
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.proof.comparison import Dtype
from layerguard.exporter.proof.decode import compare_continued, make_continued
from layerguard.exporter.proof.reference import References
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError


def decode_part(
    loaded: Loaded,
    architecture: Architecture,
    layers: int,
    dtype: Dtype,
    pad: int,
    references: References,
) -> Part:
    """The decode graph of the first ``layers`` blocks; its texts are asked of ``references``.

    Args:
        loaded: a decoder, in float32; without a head the graph gives no logits.
        architecture: of its backbone.
        layers: 1 to all; with fewer than all the graph gives no logits and no final norm.
        dtype: of the graph; the cache is float16 where that is.
        pad: token id that fills short rows.
        references: of the language model, or of the backbone where there is no head.

    Raises:
        ExportError: the model is no decoder, or its attention cannot read a cache of the host's.
    """
    model = type(architecture.model).__name__
    if architecture.kind != "decoder":
        raise ExportError(
            f"{model} is an encoder, whose states change with every further token; a decode graph "
            "needs a decoder. Export without it: --decode no"
        )
    if "position_ids" not in architecture.inputs:
        raise ExportError(
            f"{model} takes no position ids, so it cannot be told where in a text a token stands; "
            "a decode graph needs that. Export without it: --decode no"
        )
    if architecture.rope_switch is not None:
        raise ExportError(
            f"{model} reads texts of more than {architecture.rope_switch} tokens with other rotary "
            "frequencies (rope_type 'longrope'), with which the cache of a shorter text is of no "
            "use; a decode graph needs one set of them. Export with --max-tokens "
            f"{architecture.rope_switch}, or without it: --decode no"
        )
    whole = layers == architecture.layers
    causal = loaded.causal if whole else None
    outputs = plan_decode(
        layers, final_norm=whole and architecture.final_norm, logits=causal is not None
    )
    module = Decoder(architecture, causal, outputs)
    inputs = _inputs(architecture, layers, dtype)
    _try(module, inputs)
    cases = make_continued(architecture, pad)
    for case in cases:
        for ids, ends in case.rows():
            references.want(ids, ends)
    return Part(
        mode="decode",
        module=module,
        inputs=inputs,
        outputs=outputs,
        prove=partial(compare_continued, cases=cases, references=references, outputs=outputs),
    )


def _inputs(architecture: Architecture, layers: int, dtype: Dtype) -> tuple[GraphInput, ...]:
    ids = torch.arange(6).reshape(2, 3)
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[0, 2] = 0
    steering = torch.zeros(layers, 4, architecture.width)
    kept = torch.float16 if dtype == "float16" else torch.float32
    cache = [
        GraphInput(
            f"past_{name}_{block:02}",
            torch.zeros(2, entry.shape[1], 5, entry.shape[3], dtype=kept),
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
def _try(module: "Decoder", inputs: Sequence[GraphInput]) -> None:
    """Run once in PyTorch: what cannot be, shows before it is traced."""
    try:
        # in the model's precision, which is not yet the graph's
        module(
            *(
                item.example.float() if item.name.startswith("past_") else item.example
                for item in inputs
            )
        )
    except ExportError:
        raise
    except Exception as error:  # the model's own code, which may raise anything
        raise ExportError(
            f"{type(module.model).__name__} cannot read a cache of the host's "
            f"({first_line(error)}); expected a model whose attention goes through transformers' "
            "AttentionInterface. Export without a decode graph: --decode no"
        ) from error


@torch.inference_mode()
def _entries(architecture: Architecture) -> list[Entry]:
    """What each block puts into a cache.

    Raises:
        ExportError: a block puts nothing there.
    """
    new = NewEntries()
    architecture.model(input_ids=torch.zeros(1, 1).long(), past_key_values=new, use_cache=True)
    if new.of.keys() != set(range(architecture.layers)):
        raise ExportError(
            f"{type(architecture.model).__name__}: {len(new.of)} of {architecture.layers} blocks "
            "put keys and values into a cache; expected all, as a decode graph needs. Export "
            "without it: --decode no"
        )
    return [new.of[block] for block in range(architecture.layers)]


class Decoder(nn.Module):
    """A decoder as a module whose forward continues a text and returns the planned outputs."""

    def __init__(
        self,
        architecture: Architecture,
        causal: PreTrainedModel | None,
        outputs: Sequence[OutputCard],
    ) -> None:
        super().__init__()
        self.model = causal or architecture.model
        self._architecture = architecture
        self._outputs = tuple(outputs)
        taken = inspect.signature(self.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, steering: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """The planned outputs.

        Args:
            input_ids: int64 [batch, tokens], the new tokens.
            attention_mask: int64 [batch, past + tokens], 1 where a place is valid.
            steering: float32 [kept blocks, m, hidden]; rows orthonormal or zero.
            past: of each kept block in turn, keys and values [batch, kv_heads, past, head_dim].
        """
        cache = list(zip(past[::2], past[1::2], strict=True))
        places = Places(attention_mask, past[0].shape[2], input_ids.shape[1])
        new = NewEntries()
        model, blocks = self._architecture.model, self._architecture.blocks
        normed: list[Tensor] = []
        with (
            cached_attention(model, len(blocks), places, cache),
            steered(blocks, steering),
            recording(blocks) as seen,
            model.register_forward_hook(lambda *call: normed.append(call[2].last_hidden_state)),
        ):
            made = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=places.new + self._architecture.first_position,
                past_key_values=new,
                use_cache=True,
                return_dict=True,
                **self._last_only,
            )
        give: Mapping[str, Callable[[int], Tensor]] = {
            "logits": lambda _: made.logits[:, -1].to(torch.float32),
            "state": lambda layer: seen.states[layer],
            "final_norm": lambda _: normed[0],
            "key": lambda layer: new.of[layer - 1][0],
            "value": lambda layer: new.of[layer - 1][1],
        }
        return tuple(give[card.kind](card.layer) for card in self._outputs)


@contextmanager
def steered(blocks: Sequence[nn.Module], steering: Tensor) -> Iterator[None]:
    """Take from each block's output its components along the directions, before anything reads it.

    Zero rows leave it as it is, to the bit: nothing is subtracted.

    Args:
        blocks: the first of them are steered, as many as there are directions for.
        steering: float32 [blocks, m, hidden]; the rows of a block orthonormal or zero.
    """
    handles = [
        block.register_forward_hook(_without(directions))
        for block, directions in zip(blocks, steering.unbind(0), strict=False)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without(directions: Tensor) -> Callable[..., Any]:
    """A forward hook that gives a block's output without its components along [m, hidden]."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        states = first(output).to(torch.float32)
        kept = states - (states @ directions.T) @ directions
        return replaced(output, kept.to(first(output).dtype))

    return hook
