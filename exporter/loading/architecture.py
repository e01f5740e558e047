"""What a backbone is made of, found by its configuration and by watching it run once.

Nothing here knows a model by name. The blocks are the list of modules that is as long as the
configuration says there are layers. The rest is asked of the model: does an early position change
when a later token does (encoder) or not (decoder)? Is the last hidden state the last block's output
(no final norm)? Which table is read at 0, 1, 2, ... (learned positions), and where does it start?
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from optimum.utils import NormalizedConfigManager, NormalizedTextConfig
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from layerguard.exporter.graph.recording import Recorded, recording
from layerguard.exporter.graph.rope import switch_length
from layerguard.runtime.errors import ExportError

_PROBE_TOKENS = 8
_ROUNDING = 1e-5
"""Relative; what changes an early position by less did not reach it."""


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """A backbone and what the export must know of it.

    Attributes:
        model: the backbone.
        blocks: its L blocks, in order.
        width: hidden size D.
        vocabulary: rows of the token embedding.
        kind: ``decoder`` where a position sees only earlier ones, else ``encoder``.
        final_norm: whether the model does anything to the last block's output.
        max_positions: tokens that it can take, or None where nothing bounds them.
        inputs: which optional inputs its forward takes.
        first_position: position id of the first token (2 in RoBERTa, else 0).
        rope_switch: the longest row that is read with the short set of rotary frequencies, where
            longer ones take another; None where no row does.
    """

    model: PreTrainedModel
    blocks: tuple[nn.Module, ...]
    width: int
    vocabulary: int
    kind: Literal["encoder", "decoder"]
    final_norm: bool
    max_positions: int | None
    inputs: frozenset[str]
    first_position: int
    rope_switch: int | None = None

    @property
    def layers(self) -> int:
        """L, the number of blocks."""
        return len(self.blocks)

    def within(self, max_tokens: int) -> "Architecture":
        """The same of a guard whose rows have at most ``max_tokens`` tokens."""
        most = min(self.max_positions or max_tokens, max_tokens)
        reached = self.rope_switch is not None and most > self.rope_switch
        return replace(self, max_positions=most, rope_switch=self.rope_switch if reached else None)

    def arguments(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """What forward is called with; positions count the valid tokens, so padding may lie left.

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: int64 [batch, tokens], 1 where a token is valid.
        """
        given: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in self.inputs:
            given["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(
                min=0
            ) + self.first_position
        if "token_type_ids" in self.inputs:
            given["token_type_ids"] = torch.zeros_like(input_ids)
        if "use_cache" in self.inputs:
            given["use_cache"] = False
        return given


def examine(model: PreTrainedModel) -> Architecture:
    """Look at a backbone; it is run twice on eight tokens.

    Raises:
        ExportError: it has no list of blocks, or its blocks do not pass on one stream of states.
    """
    config = _normalised(model.config)
    blocks = _blocks(model, config.num_layers)
    vocabulary = _rows(model.get_input_embeddings())
    first, tables = _watch(model, blocks, _probe_ids(model, vocabulary))
    second, _ = _watch(model, blocks, _probe_ids(model, vocabulary, changed=True))
    _check_stream(model, first, config.hidden_size)
    table = next(iter(tables.items()), None)
    taken = inspect.signature(model.forward).parameters
    inputs = {name for name in ("position_ids", "use_cache") if name in taken}
    if "token_type_ids" in taken and getattr(model.config, "type_vocab_size", None):
        inputs.add("token_type_ids")
    start = 0 if table is None else table[1]
    rows = getattr(model.config, "max_position_embeddings", None)
    return Architecture(
        model=model,
        blocks=blocks,
        width=config.hidden_size,
        vocabulary=vocabulary,
        kind="decoder" if _same(first.states[-1][:, :-1], second.states[-1][:, :-1]) else "encoder",
        final_norm=not _same(first.output, first.states[-1], within=0),
        max_positions=rows if table is None else table[0].num_embeddings - start,
        inputs=frozenset(inputs),
        first_position=start,
        rope_switch=switch_length(model),
    )


def feed_forwards(architecture: Architecture) -> tuple[nn.Module, ...]:
    """The feed-forward part of each block: its child ``mlp``, else its one D x intermediate layer.

    Raises:
        ExportError: a block has neither.
    """
    inner = getattr(architecture.model.config, "intermediate_size", None)
    found = []
    for number, block in enumerate(architecture.blocks, 1):
        children = dict(block.named_children())
        shape = (architecture.width, inner)
        down = [m for m in block.modules() if isinstance(m, nn.Linear) and m.weight.shape == shape]
        if "mlp" not in children and len(down) != 1:
            raise ExportError(
                f"block {number} ({type(block).__name__}) has children {', '.join(children)}; "
                f"expected one named mlp, or one linear layer {inner} -> {architecture.width}. "
                "Export without --mlp"
            )
        found.append(children["mlp"] if "mlp" in children else down[0])
    return tuple(found)


def _normalised(config: PretrainedConfig) -> NormalizedTextConfig:
    """The configuration under common names (n_layer, n_layers, ... are all num_layers)."""
    known: Mapping[str, type[NormalizedTextConfig]] = NormalizedConfigManager._conf  # noqa: SLF001
    normalised = known.get(config.model_type, NormalizedTextConfig)(config)
    lacking = [name for name in ("num_layers", "hidden_size") if not normalised.has_attribute(name)]
    if lacking:
        raise ExportError(
            f"the configuration ({type(config).__name__}) says no {' and no '.join(lacking)}; "
            "expected a text model's. Name the text part of the model"
        )
    return normalised


def _blocks(model: nn.Module, depth: int) -> tuple[nn.Module, ...]:
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = [list(modules) for modules in lists.values() if len(modules) == depth]
    if not fitting:
        seen = ", ".join(f"{name} of {len(modules)}" for name, modules in lists.items()) or "none"
        raise ExportError(
            f"{type(model).__name__} has no list of {depth} blocks (lists of modules: {seen}); "
            "expected one nn.ModuleList as long as the configuration's number of layers. Models "
            "that run one shared block several times, such as ALBERT, are not supported"
        )
    # experts or adapters may come in lists of the same length; the blocks hold them
    return tuple(max(fitting, key=lambda modules: sum(map(_parameters, modules))))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _rows(embedding: nn.Module) -> int:
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    return len(weight)


def _probe_ids(model: PreTrainedModel, vocabulary: int, *, changed: bool = False) -> Tensor:
    """Token ids [1, 8], not in order, none of them padding; ``changed``: another last token."""
    pad = getattr(model.config, "pad_token_id", None)
    usable = [i for i in range(min(vocabulary, 64)) if i != pad]
    ids = [usable[(7 * i + 3) % len(usable)] for i in range(_PROBE_TOKENS)]
    if changed:
        ids[-1] = next(i for i in usable if i != ids[-1])
    return torch.tensor([ids])


@torch.inference_mode()
def _watch(
    model: PreTrainedModel, blocks: tuple[nn.Module, ...], ids: Tensor
) -> tuple[Recorded, dict[nn.Embedding, int]]:
    """Run the model: what the blocks saw, and which tables were read at consecutive indices."""
    tables: dict[nn.Embedding, int] = {}

    def look(module: nn.Module, given: tuple[Any, ...], _: object) -> None:
        index = given[0].flatten() if given else torch.empty(0)
        if index.numel() == _PROBE_TOKENS and bool((index.diff() == 1).all()):
            assert isinstance(module, nn.Embedding)
            tables[module] = int(index[0])

    watched = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    handles = [module.register_forward_hook(look) for module in watched]
    try:
        with recording(blocks) as recorded:
            recorded.output = model(input_ids=ids, return_dict=True).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return recorded, tables


def _check_stream(model: nn.Module, recorded: Recorded, width: int) -> None:
    expected = (1, _PROBE_TOKENS, width)
    shapes = {tuple(state.shape) for state in recorded.states}
    if shapes != {expected} or tuple(recorded.output.shape) != expected:
        raise ExportError(
            f"{type(model).__name__}: states of shapes {sorted(shapes)}, last hidden state "
            f"{tuple(recorded.output.shape)}; expected {expected} throughout, one stream of the "
            "configuration's hidden size through all blocks"
        )


def _same(left: Tensor, right: Tensor, within: float = _ROUNDING) -> bool:
    return bool((left - right).abs().max() <= within * right.abs().max())
