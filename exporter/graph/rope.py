"""Rotary frequencies that depend on a row's own length, not on the longest row of a batch.

LongRoPE (arXiv 2402.13753) has two sets of frequencies. transformers uses the long set for all rows
if one row is longer than the length of pretraining, so the states of a row depend on the other rows
of the batch. In a graph each row uses the set for its own length. ``dynamic`` frequencies change
only for rows longer than ``max_position_embeddings``, which no row may exceed; a graph therefore
uses the frequencies of shorter rows.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerguard.exporter.graph.recording import replaced_forward


def switch_length(model: nn.Module) -> int | None:
    """The most tokens that use the short set of frequencies; None if there is one set only.

    The minimum over all layers.
    """
    lengths = [
        _length(module, layer_type)
        for module in model.modules()
        for layer_type, rope_type in _rope_types(module).items()
        if rope_type == "longrope"
    ]
    return min(lengths, default=None)


@contextmanager
def per_row_frequencies(model: nn.Module) -> Iterator[None]:
    """Within the ``with`` block, choose the rotary frequencies of each row by its own length."""
    module: Any  # rotary modules have no common type
    with ExitStack() as changes:
        for module in model.modules():
            types = _rope_types(module)
            if "longrope" in types.values():
                changes.enter_context(replaced_forward(module, _by_row(module, module.forward)))
            if any("dynamic" in rope_type for rope_type in types.values()):
                changes.callback(setattr, module, "rope_type", module.rope_type)
                fixed = {k: "default" if "dynamic" in v else v for k, v in types.items()}
                module.rope_type = fixed.get(None, fixed)
        yield


def _rope_types(module: nn.Module) -> dict[str | None, str]:
    """The frequency types of a rotary module by layer type; the key None stands for all layers."""
    rope_type = getattr(module, "rope_type", None)
    if isinstance(rope_type, str):
        return {None: rope_type}
    return dict(rope_type) if isinstance(rope_type, dict) else {}


def _length(module: Any, layer_type: str | None) -> int:
    parameters = module.config.rope_parameters
    own = parameters if layer_type is None else parameters[layer_type]
    return int(own["original_max_position_embeddings"])


def _by_row(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The module's forward method (cos and sin) with frequencies by each row's own length."""

    def each_row(states: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
        more = {} if layer_type is None else {"layer_type": layer_type}
        if _rope_types(module).get(layer_type) != "longrope":
            return forward(states, position_ids, **more)
        last = _length(module, layer_type) - 1
        # transformers chooses the set by the largest position
        short = forward(states, position_ids.clamp(max=last), **more)
        beyond = torch.full_like(position_ids[:1], last + 1)
        long = forward(states, torch.cat([position_ids, beyond]), **more)
        is_long = (position_ids.amax(1) > last)[:, None, None]
        if isinstance(short, Tensor):
            return torch.where(is_long, long[:-1], short)
        return tuple(torch.where(is_long, b[:-1], a) for a, b in zip(short, long, strict=True))

    return each_row
