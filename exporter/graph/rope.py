"""Rotary positions whose frequencies transformers chooses by the longest row of a batch.

LongRoPE (arXiv 2402.13753) has two sets of frequencies, and transformers takes the long set for all
rows as soon as one row is longer than the length of pretraining: what a row gives would depend on
the rows beside it. In a graph each row takes the set of its own length, as it does alone.
``dynamic`` frequencies change beyond ``max_position_embeddings`` only, which no row may exceed, so
a graph keeps those of shorter rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def switch_length(model: nn.Module) -> int | None:
    """The most tokens that are read with the short set of frequencies; None where there is one set.

    Where layers differ, the least of them.
    """
    lengths = [
        _length(module, layer_type)
        for module in model.modules()
        for layer_type, rope_type in _rope_types(module).items()
        if rope_type == "longrope"
    ]
    return min(lengths, default=None)


@contextmanager
def rows_apart(model: nn.Module) -> Iterator[None]:
    """Make the rotary positions of each row independent of the other rows in the ``with`` block."""
    changed: list[tuple[nn.Module, str]] = []
    kept: list[tuple[Any, Any]] = []
    module: Any  # its attributes are those of no common type
    try:
        for module in model.modules():
            types = _rope_types(module)
            if "longrope" in types.values():
                module.forward = _by_row(module, module.forward)
                changed.append((module, "forward"))
            if any("dynamic" in rope_type for rope_type in types.values()):
                kept.append((module, module.rope_type))
                fixed = {k: "default" if "dynamic" in v else v for k, v in types.items()}
                module.rope_type = fixed.get(None, fixed)
        yield
    finally:
        for module, name in changed:
            delattr(module, name)
        for module, rope_type in kept:
            module.rope_type = rope_type


def _rope_types(module: nn.Module) -> dict[str | None, str]:
    """The kind of frequencies of a rotary module by layer type, or of all layers by None."""
    found = getattr(module, "rope_type", None)
    if isinstance(found, str):
        return {None: found}
    return dict(found) if isinstance(found, dict) else {}


def _length(module: Any, layer_type: str | None) -> int:
    parameters = module.config.rope_parameters
    own = parameters if layer_type is None else parameters[layer_type]
    return int(own["original_max_position_embeddings"])


def _by_row(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The module's forward, cos and sin, with the set of frequencies of each row's own length."""

    def each_row(states: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
        more = {} if layer_type is None else {"layer_type": layer_type}
        if _rope_types(module).get(layer_type) != "longrope":
            return forward(states, position_ids, **more)
        last = _length(module, layer_type) - 1
        # a last position within the length, and one beyond it, make transformers take either set
        short = forward(states, position_ids.clamp(max=last), **more)
        beyond = torch.full_like(position_ids[:1], last + 1)
        long = forward(states, torch.cat([position_ids, beyond]), **more)
        is_long = (position_ids.amax(1) > last)[:, None, None]
        if isinstance(short, Tensor):
            return torch.where(is_long, long[:-1], short)
        return tuple(torch.where(is_long, b[:-1], a) for a, b in zip(short, long, strict=True))

    return each_row
