"""What tuning changed in the matrices that write into the residual stream, as modules of the model.

The detector ``delta`` reads how much a change adds to a text. A LoRA adapter's change is exact. Of
any other change the leading singular directions are kept, which are those that "Watch the Weights"
(arXiv 2508.00161) reads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerguard.runtime.checkpoints.places import Place, place_of
from layerguard.runtime.errors import ExportError

RANKS = 20
"""Directions that are kept of a change without thin factors."""

_FLOOR = 1e-3
"""Singular values at or below this share of the largest are rounding of the stored weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """The change dW of one matrix.

    Attributes:
        place: the number of the block, from 0, and the part (0 feed-forward, 1 attention).
        module: the linear layer of the tuned model; its input is x.
        factor: float32 [rank, inputs]; the length of ``factor @ x`` is that of dW x.
    """

    place: Place
    module: nn.Module
    factor: Tensor


def adapter_change(name: str, module: nn.Module, up: Tensor, down: Tensor) -> Change | None:
    """The change of a LoRA adapter; None if its module does not write into the residual stream.

    Args:
        name: of the module.
        module: the changed layer.
        up: float32 [width, rank], with the adapter's scale.
        down: float32 [rank, inputs].
    """
    place = place_of(name)
    if place is None:
        return None
    basis = torch.linalg.qr(up.double()).R
    return Change(place, module, (basis @ down.double()).float())


def changes_between(tuned: nn.Module, base: nn.Module) -> tuple[Change, ...]:
    """The changes of a tuned model from its base, in order; unchanged matrices have none.

    Args:
        tuned: in float32.
        base: in float32, of the same architecture.

    Raises:
        ExportError: the base lacks a matrix, or has one of another shape.
    """
    others = dict(base.named_modules())
    found = []
    for name, module in tuned.named_modules():
        place = place_of(name)
        if place is not None and isinstance(module, nn.Linear | Conv1D):
            change = _matrix(module) - _same(name, module, others)
            factor = _leading(change)
            if len(factor):
                found.append(Change(place, module, factor))
    return in_order(found)


def in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes by block and part."""
    return tuple(sorted(changes, key=lambda change: change.place))


def _same(name: str, module: nn.Module, others: Mapping[str, nn.Module]) -> Tensor:
    other = others.get(name)
    shape = list(_matrix(module).shape)
    if not isinstance(other, type(module)) or list(_matrix(other).shape) != shape:
        raise ExportError(
            f"the base has no {name} of shape {shape}; expected the model before it was tuned. "
            "Give the weights that tuning began with as --base"
        )
    return _matrix(other)


def _matrix(module: nn.Module) -> Tensor:
    """The weight as float64 [width, inputs]."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return (weight.T if isinstance(module, Conv1D) else weight).detach().double()


def _leading(change: Tensor) -> Tensor:
    """U' dW of the leading left singular vectors U, float32 [at most RANKS, inputs]."""
    squares, vectors = torch.linalg.eigh(change @ change.T)
    values = squares.clamp(min=0).sqrt()
    kept = (values > _FLOOR * values.max()) & (values > 0)
    kept[:-RANKS] = False
    factor: Tensor = vectors[:, kept].T @ change
    return factor.float()
