"""Weight changes: tuned minus base, for each matrix that writes into the residual stream.

Three sources: two checkpoints of one architecture, a LoRA adapter in PEFT's format with its base,
or the adapter alone. Matrices are read on demand, one pair at a time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration.weights.adapter import Adapter, read_adapter
from layerguard.calibration.weights.files import WeightTensor, checkpoint
from layerguard.runtime.checkpoints.lora import is_adapter
from layerguard.runtime.checkpoints.places import (
    INPUT_FIRST,
    PARTS,
    Place,
    has_experts,
    place_of,
)
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one matrix.

    Attributes:
        block: number of the block, from 0.
        part: index in ``PARTS``.
        factors: the change itself, [width, inputs], or the factors B and A of an adapter.
        base_norm: Frobenius norm of the matrix before tuning; NaN if the base is not known.
        noise: the largest singular value that rounding of the stored weights alone may cause.
    """

    block: int
    part: int
    factors: tuple[Array, ...]
    base_norm: float
    noise: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """All weight changes of a tuned model.

    Attributes:
        blocks: number of blocks of the model; None for an adapter without its base.
        places: block and part of the matrices that may have changed, in order.
    """

    blocks: int | None
    places: tuple[Place, ...]
    _base: "Mapping[Place, _Matrix] | None"
    _tuned: "Mapping[Place, _Matrix] | Adapter"

    def change(self, block: int, part: int) -> Change:
        """Read one change.

        Raises:
            InputError: the dtype is not supported, or a value is not finite.
        """
        place = (block, part)
        base = None if self._base is None else self._base[place]
        if isinstance(self._tuned, Adapter):
            norm = math.nan if base is None else float(np.linalg.norm(base.read()))
            return Change(block, part, self._tuned.factors(place), norm, noise=0.0)
        assert base is not None
        tuned = self._tuned[place]
        before = base.read()
        difference = tuned.read().astype(np.float64) - before
        norm = float(np.linalg.norm(before))
        roundoff = max(base.stored.roundoff, tuned.stored.roundoff)
        noise = _rounding_noise(roundoff, before)
        return Change(block, part, (difference,), norm, noise)


def between(base: Path, tuned: Path) -> Tuning:
    """The changes from a base model to a tuned model.

    Args:
        base: the base model: a folder with config.json and safetensors, or a GGUF file.
        tuned: the tuned model in the same form, or the folder of a LoRA adapter.

    Raises:
        InputError: a folder cannot be read, an architecture is not known, or the two differ; lists
            every fault.
    """
    before = _writers(base)
    if is_adapter(tuned):
        adapter = read_adapter(tuned)
        faults = [
            f"{PARTS[part]} of block {block}: adapter {_sides(adapter.shape((block, part)))}, "
            f"base {_found(before, (block, part))}"
            for block, part in adapter.places
            if (block, part) not in before
            or before[block, part].shape != adapter.shape((block, part))
        ]
        _refuse(f"{tuned} does not fit {base}", faults)
        return Tuning(_depth(before), adapter.places, before, adapter)
    after = _writers(tuned)
    faults = [
        f"{PARTS[part]} of block {block}: base {_found(before, (block, part))}, "
        f"tuned {_found(after, (block, part))}"
        for block, part in sorted({*before, *after})
        if _found(before, (block, part)) != _found(after, (block, part))
    ]
    _refuse(f"{tuned} is not a tuned {base}", faults)
    return Tuning(_depth(before), tuple(sorted(before)), before, after)


def adapter_alone(folder: Path) -> Tuning:
    """The changes that a LoRA adapter makes to any base.

    Raises:
        InputError: it is not a plain LoRA adapter in PEFT's format, or changes no matrix that
            writes into the residual stream.
    """
    adapter = read_adapter(folder)
    return Tuning(None, adapter.places, None, adapter)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix of a checkpoint as [width, inputs], independent of the stored order."""

    stored: WeightTensor
    input_first: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape[::-1] if self.input_first else self.stored.shape

    def read(self) -> Array:
        values = self.stored.read()
        return values.T if self.input_first else values


def _writers(folder: Path) -> dict[Place, _Matrix]:
    """The matrices of a checkpoint that write into the residual stream, by place."""
    model_type, tensors = checkpoint(folder)
    input_first = model_type in INPUT_FIRST
    matrices: dict[Place, _Matrix] = {}
    faults = []
    for name, tensor in tensors.items():
        place = place_of(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if place is None:
            continue
        if place in matrices:
            faults.append(
                f"{PARTS[place[1]]} of block {place[0]}: {matrices[place].stored.name} and {name}; "
                "expected one. Keep the text part of the model alone"
            )
        matrices[place] = _Matrix(tensor, input_first)
    depth = _depth(matrices)
    lacking = [
        f"block {block} has no {PARTS[part]}"
        for block in range(depth)
        for part in range(len(PARTS))
        if (block, part) not in matrices
    ]
    widths = {matrix.shape[0] for matrix in matrices.values()}
    if len(widths) > 1:
        faults.append(f"matrices write into streams of widths {sorted(widths)}; expected one width")
    _refuse(f"{folder} cannot be compared", faults + _explained(lacking, tensors, depth))
    return matrices


def _explained(lacking: list[str], tensors: Mapping[str, WeightTensor], depth: int) -> list[str]:
    """Faults on missing matrices, with a cause that the names of the other tensors show."""
    if not lacking and depth:
        return []
    if has_experts(tensors):
        experts = "expected one matrix a block. WeightWatch does not read experts"
        return [f"its feed-forward part is a mixture of experts; {experts}"]
    named = ", ".join(sorted(tensors)[:_SHOWN])
    expected = "one output matrix of attention and one of the feed-forward part in every block"
    return [*lacking, f"found {len(tensors)} tensors ({named}, ...); expected {expected}"]


def _rounding_noise(roundoff: float, weights: Array) -> float:
    """The largest singular value of the rounding errors of both checkpoints.

    Rounding w has an error of at most u |w| with variance at most (u |w|)^2 / 3, and the variances
    of two roundings add. The singular values of a matrix of independent errors are at most the
    largest row norm plus the largest column norm of the errors' standard deviations, up to terms
    that vanish with its size (Bandeira and van Handel, "Sharp nonasymptotic bounds on the norm of
    random matrices with independent entries", 2016).
    """
    rows, columns = (float(np.linalg.norm(weights, axis=axis).max()) for axis in (1, 0))
    return math.sqrt(2 / 3) * roundoff * (rows + columns)


def _depth(places: Mapping[Place, object]) -> int:
    return 1 + max((block for block, _ in places), default=-1)


def _found(matrices: Mapping[Place, _Matrix], place: Place) -> str:
    return _sides(matrices[place].shape) if place in matrices else "none"


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _refuse(summary: str, faults: list[str]) -> None:
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise InputError(f"{summary}:{listed}")
