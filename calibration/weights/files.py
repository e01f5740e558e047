"""Read weights from safetensors or GGUF files, one matrix at a time, without PyTorch.

The safetensors package verifies the header of a file. This module reads the values, because numpy
has no bfloat16: a bfloat16 is the upper half of a float32.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from layerguard.runtime.checkpoints.gguf import find_gguf, read_gguf
from layerguard.runtime.checkpoints.gguf_names import NamedTensor, model_type, named_tensors
from layerguard.runtime.checkpoints.json_object import read_json
from layerguard.runtime.errors import InputError
from layerguard.runtime.regular_files import open_regular
from layerguard.runtime.types import Array

CONFIG = "config.json"

_INDEX = "model.safetensors.index.json"
_USUAL = ("model.safetensors", "adapter_model.safetensors")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ROUNDOFFS = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}


class WeightTensor(Protocol):
    """A tensor of a checkpoint, whose values are read on demand."""

    @property
    def name(self) -> str:
        """The name of the tensor in transformers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""

    @property
    def roundoff(self) -> float:
        """The unit roundoff of the stored type."""

    def read(self) -> Array:
        """Read the values: float64 if they are stored as float64, else float32."""


@dataclass(frozen=True, slots=True)
class GgufWeights:
    """A tensor of a GGUF file."""

    tensor: NamedTensor

    @property
    def name(self) -> str:
        """The name of the tensor in transformers."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor in transformers."""
        return self.tensor.shape

    @property
    def roundoff(self) -> float:
        """The unit roundoff of F32, F16 or BF16; for a quantised type that of its F16 scales.

        The error of a quantised weight may be much larger, and the errors in a block are not
        independent. The weights alone do not show whether quantisation or tuning changed them.
        """
        return _ROUNDOFFS.get(self.tensor.stored.type, _ROUNDOFFS["F16"])

    def read(self) -> Array:
        """Read the values as float32."""
        return self.tensor.read()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The location of one tensor in a safetensors file.

    Attributes:
        name: name in the file.
        path: path of the file.
        dtype: dtype in safetensors' notation: F32, F16, BF16, ...
        shape: shape of the tensor.
        offset: offset of its first byte in the file.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def roundoff(self) -> float:
        """The unit roundoff of the dtype: half the distance from 1 to the next number."""
        return _ROUNDOFFS[self.dtype]

    def read(self) -> Array:
        """Read the values: float64 if they are stored as float64, else float32 without rounding.

        Raises:
            InputError: the dtype is not supported, or a value is not finite.
        """
        if self.dtype not in _DTYPES:
            raise InputError(
                f"{self.path.name}: {self.name} is {self.dtype}; expected one of "
                f"{', '.join(_DTYPES)}. Save the model unquantised"
            )
        stored = np.fromfile(
            self.path, _DTYPES[self.dtype], count=math.prod(self.shape), offset=self.offset
        )
        if self.dtype == "BF16":
            stored = (stored.astype("<u4") << 16).view("<f4")
        values: Array = stored.astype(np.result_type(stored, np.float32)).reshape(self.shape)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.path.name}: {self.name} has values that are not finite; expected finite "
                "ones. Save the checkpoint again"
            )
        return values


def checkpoint(path: Path) -> tuple[str, dict[str, WeightTensor]]:
    """A model's type in transformers, and its tensors by name.

    Args:
        path: a folder with config.json and safetensors, a GGUF file, or a folder with a GGUF file.

    Raises:
        InputError: the path is none of these, or a file is malformed.
    """
    gguf = find_gguf(path)
    if gguf is not None:
        file = read_gguf(gguf)
        return model_type(file), {
            tensor.name: GgufWeights(tensor) for tensor in named_tensors(file)
        }
    config = read_json(path / CONFIG)
    return str(config.get("model_type")), dict(stored_tensors(path))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder of weights, by name.

    Reads the files that ``model.safetensors.index.json`` names. Without an index, reads the file
    ``model.safetensors`` or ``adapter_model.safetensors``, or else all ``*.safetensors``.

    Raises:
        InputError: there are no files, one is malformed, or two have a tensor of the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in _files(folder):
        for tensor in tensors_of(path):
            if tensor.name in tensors:
                raise InputError(
                    f"{folder}: found {tensor.name} in {tensors[tensor.name].path.name} and in "
                    f"{path.name}; expected each tensor once. Keep only one model's files there"
                )
            tensors[tensor.name] = tensor
    return tensors


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with *.safetensors in it")
    if (folder / _INDEX).is_file():
        listed = read_json(folder / _INDEX).get("weight_map")
        names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise InputError(
                f"{folder / _INDEX}: found weight_map {str(listed)[:80]}; expected the file of "
                "each tensor, in the same folder"
            )
        return [folder / name for name in names]
    usual = [folder / name for name in _USUAL if (folder / name).is_file()]
    files = usual[:1] or sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(path.name for path in folder.glob("*.bin")) or ["none"]
        raise InputError(
            f"{folder}: found no *.safetensors (*.bin: {', '.join(others[:5])}); expected weights "
            "in safetensors. Save the model again with save_pretrained of transformers"
        )
    return files


def tensors_of(path: Path) -> list[StoredTensor]:
    """Every tensor of one file.

    Raises:
        InputError: the file is malformed.
    """
    try:
        open_regular(path).close()  # opening a pipe by its name might not end
        with safe_open(path, "numpy"):  # verifies the header, its size and every offset
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {error}; expected a complete safetensors file") from error
    header.pop("__metadata__", None)
    return [
        StoredTensor(
            name, path, card["dtype"], tuple(card["shape"]), 8 + size + card["data_offsets"][0]
        )
        for name, card in header.items()
    ]
