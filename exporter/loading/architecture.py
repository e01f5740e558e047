"""What a backbone is made of, found from its configuration and two forward passes.

Nothing here depends on the name of a model. The blocks are the list of modules whose length is the
configuration's number of layers. The passes show whether an early position depends on a later token
(encoder) or not (decoder), whether the last hidden state is the last block's output (no final
norm), and which embedding is read at consecutive indices (learned positions), from which index.
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
"""Relative; an early position that changes by less does not depend on the later token."""


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """A backbone and its properties.

    Attributes:
        model: the backbone.
        blocks: its L blocks, in order.
        width: hidden size D.
        vocabulary: rows of the token embedding.
        kind: ``decoder`` if a position depends on earlier ones only, else ``encoder``.
        final_norm: whether the model changes the last block's output.
        max_positions: largest number of tokens; None if it is not limited.
        inputs: optional inputs of its forward method.
        first_position: position id of the first token (2 in RoBERTa, else 0).
        rope_switch: the longest row that uses the short set of rotary frequencies, if longer rows
            use another set; None if all rows use one set.
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

    def with_max_tokens(self, max_tokens: int) -> "Architecture":
        """The same architecture for a guard whose rows have at most ``max_tokens`` tokens."""
        most = min(self.max_positions or max_tokens, max_tokens)
        switches = self.rope_switch is not None and most > self.rope_switch
        return replace(self, max_positions=most, rope_switch=self.rope_switch if switches else None)

    def arguments(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """Arguments of the forward pass; positions count valid tokens, wherever the padding is.

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: int64 [batch, tokens], 1 where a token is valid.
        """
        arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in self.inputs:
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
            arguments["position_ids"] = positions + self.first_position
        if "token_type_ids" in self.inputs:
            arguments["token_type_ids"] = torch.zeros_like(input_ids)
        if "use_cache" in self.inputs:
            arguments["use_cache"] = False
        return arguments


def examine(model: PreTrainedModel) -> Architecture:
    """Find the properties of a backbone; it is run twice on eight tokens.

    Raises:
        ExportError: the model has no list of blocks, or its states do not all have the shape
            [batch, tokens, hidden].
    """
    config = _normalised(model.config)
    blocks = _blocks(model, config.num_layers)
    vocabulary = _rows(model.get_input_embeddings())
    first, tables = _observe(model, blocks, _probe_ids(model, vocabulary))
    second, _ = _observe(model, blocks, _probe_ids(model, vocabulary, changed=True))
    _check_shapes(model, first, config.hidden_size)
    table = next(iter(tables.items()), None)
    parameters = inspect.signature(model.forward).parameters
    inputs = {name for name in ("position_ids", "use_cache") if name in parameters}
    if "token_type_ids" in parameters and getattr(model.config, "type_vocab_size", None):
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
    parts = []
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
        parts.append(children["mlp"] if "mlp" in children else down[0])
    return tuple(parts)


def _normalised(config: PretrainedConfig) -> NormalizedTextConfig:
    """The configuration under common names, such as num_layers for n_layer and n_layers."""
    known: Mapping[str, type[NormalizedTextConfig]] = NormalizedConfigManager._conf  # noqa: SLF001
    normalised = known.get(config.model_type, NormalizedTextConfig)(config)
    lacking = [name for name in ("num_layers", "hidden_size") if not normalised.has_attribute(name)]
    if lacking:
        raise ExportError(
            f"the configuration ({type(config).__name__}) lacks {' and '.join(lacking)}; "
            "expected that of a text model. Export the text part of the model"
        )
    return normalised


def _blocks(model: nn.Module, depth: int) -> tuple[nn.Module, ...]:
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = [list(modules) for modules in lists.values() if len(modules) == depth]
    if not fitting:
        listed = ", ".join(f"{name} of {len(modules)}" for name, modules in lists.items()) or "none"
        raise ExportError(
            f"{type(model).__name__} has no list of {depth} blocks (lists of modules: {listed}); "
            "expected one nn.ModuleList with a module per layer of the configuration. Models that "
            "run one shared block several times, such as ALBERT, are not supported"
        )
    # lists of experts or adapters may have the same length; the blocks contain them
    return tuple(max(fitting, key=lambda modules: sum(map(_parameters, modules))))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _rows(embedding: nn.Module) -> int:
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    return len(weight)


def _probe_ids(model: PreTrainedModel, vocabulary: int, *, changed: bool = False) -> Tensor:
    """Token ids [1, 8], unordered, without padding; ``changed`` replaces the last token."""
    pad = getattr(model.config, "pad_token_id", None)
    usable = [i for i in range(min(vocabulary, 64)) if i != pad]
    ids = [usable[(7 * i + 3) % len(usable)] for i in range(_PROBE_TOKENS)]
    if changed:
        ids[-1] = next(i for i in usable if i != ids[-1])
    return torch.tensor([ids])


@torch.inference_mode()
def _observe(
    model: PreTrainedModel, blocks: tuple[nn.Module, ...], ids: Tensor
) -> tuple[Recorded, dict[nn.Embedding, int]]:
    """Run the model: its recorded states, and the embeddings read at consecutive indices."""
    tables: dict[nn.Embedding, int] = {}

    def observe(module: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        index = inputs[0].flatten() if inputs else torch.empty(0)
        if index.numel() == _PROBE_TOKENS and bool((index.diff() == 1).all()):
            assert isinstance(module, nn.Embedding)
            tables[module] = int(index[0])

    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    handles = [module.register_forward_hook(observe) for module in embeddings]
    try:
        with recording(blocks) as recorded:
            recorded.output = model(input_ids=ids, return_dict=True).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return recorded, tables


def _check_shapes(model: nn.Module, recorded: Recorded, width: int) -> None:
    expected = (1, _PROBE_TOKENS, width)
    shapes = {tuple(state.shape) for state in recorded.states}
    if shapes != {expected} or tuple(recorded.output.shape) != expected:
        raise ExportError(
            f"{type(model).__name__}: states of shapes {sorted(shapes)}, last hidden state "
            f"{tuple(recorded.output.shape)}; expected {expected} for all, with the hidden size of "
            "the configuration. Export a model whose blocks pass on one tensor of states"
        )


def _same(left: Tensor, right: Tensor, within: float = _ROUNDING) -> bool:
    return bool((left - right).abs().max() <= within * right.abs().max())
