"""GGUF files: metadata, and tensors that are read one at a time with numpy and the gguf package.

The format is llama.cpp's, described in docs/gguf.md of ggml-org/ggml. The header is parsed here.
The package's own reader takes seconds for a vocabulary, and reports a damaged file as an arbitrary
numpy error. The package is used for the block types and their dequantisation.
"""

import math
import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import Array

SUFFIX = ".gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 4
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _LIST = 8, 9
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Location and storage type of one tensor.

    Attributes:
        name: name in the file: ``blk.0.attn_q.weight``.
        path: path of the file.
        type: name of its block type: F32, Q8_0, Q4_1, ...
        type_id: number of that type.
        shape: shape in PyTorch's order; the file lists the dimensions in reverse order.
        offset: offset of its first byte in the file.
        bytes: size in the file.
    """

    name: str
    path: Path
    type: str
    type_id: int
    shape: tuple[int, ...]
    offset: int
    bytes: int

    def read(self) -> Array:
        """The values, float32 of ``shape``, dequantised by the gguf package.

        Raises:
            InputError: a value is not finite.
        """
        gguf = _package()
        block, size = gguf.GGML_QUANT_SIZES[self.type_id]
        rows = (*self.shape[:-1], self.shape[-1] // block * size)
        stored = np.fromfile(self.path, np.uint8, count=self.bytes, offset=self.offset)
        values: Array = gguf.dequantize(stored.reshape(rows), self.type_id).reshape(self.shape)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.path.name}: {self.name} has values that are not finite; expected finite "
                "weights. Convert or download the model again"
            )
        return values


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file whose header and size were verified.

    Attributes:
        path: path of the file.
        metadata: scalars, strings and lists by key.
        tensors: the tensors in the order of the file.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """``general.architecture``: llama, qwen2, ..."""
        return str(self.metadata["general.architecture"])

    @property
    def quantisation(self) -> str:
        """The types of the tensors, by decreasing number of weights: ``Q4_1, Q8_0, F32``."""
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.type] += math.prod(tensor.shape)
        return ", ".join(name for name, _ in weights.most_common())


def find_gguf(path: Path) -> Path | None:
    """The GGUF file at ``path``, or the only GGUF file in the folder ``path``; else None.

    A folder that also contains weights in another format gives None.

    Raises:
        InputError: the folder contains several GGUF files.
    """
    if path.suffix == SUFFIX and not path.is_dir():
        return path
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []
    if not files or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"{path.resolve().name} contains {len(files)} GGUF files ({names}); expected one. Give "
            "the path of the file instead of the folder"
        )
    return files[0]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a file; tensors are read on demand.

    Raises:
        InputError: the file is missing, not GGUF, damaged, one part of a split model, big-endian,
            or has a tensor of a type that cannot be dequantised.
        MachineError: the gguf package is not installed.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path.name}: {reason}; expected a GGUF file") from error


def _package() -> ModuleType:
    try:
        import gguf  # noqa: PLC0415  not a dependency of serving
    except ImportError as error:
        raise MachineError(
            "a GGUF file needs gguf, which is not installed: pip install 'layerguard[export]' or "
            "'layerguard[calibrate]'"
        ) from error
    return gguf


class _Cursor:
    """Reads values one after another, and checks each against the remaining size of the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self.position = 0

    def values(self, code: str, count: int = 1) -> tuple[Any, ...]:
        """``count`` numbers of a ``struct`` code, little-endian."""
        size = count * struct.calcsize(f"<{code}")
        return struct.unpack(f"<{count}{code}", self._take(size))

    def number(self, code: str) -> Any:
        """One number."""
        return self.values(code)[0]

    def text(self) -> str:
        """A string: its length in bytes, then UTF-8."""
        return self._take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        """A metadata value of type ``kind``."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == _LIST:
            inner, count = self.number("I"), self.number("Q")
            if inner in _SCALARS:
                return list(self.values(_SCALARS[inner], count))
            if inner == _STRING:
                return [self.text() for _ in self.counted(count)]
        raise _damaged(self._path, "its metadata has a value of a type that GGUF does not have")

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise _damaged(
                self._path, f"its header is cut off at the end of the file, {len(self._data)} bytes"
            )
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def counted(self, count: int) -> range:
        """A range over ``count`` strings, each of which needs at least 8 bytes for its length."""
        if count * 8 > len(self._data) - self.position:
            raise _damaged(
                self._path, f"its header is cut off at the end of the file, {len(self._data)} bytes"
            )
        return range(count)


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(path, data)
    _check_start(path, data[:8])
    cursor.position = 8
    tensor_count, pair_count = cursor.values("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in cursor.counted(pair_count):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    _check_whole(path, metadata)
    entries = []
    for _ in cursor.counted(tensor_count):
        name = cursor.text()
        dimensions = cursor.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise _damaged(path, f"tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(reversed(cursor.values("Q", dimensions)))
        entries.append((name, shape, *cursor.values("I"), *cursor.values("Q")))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _damaged(path, f"its alignment is {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    return GgufFile(path, metadata, _tensors(path, entries, start, len(data)))


def _check_start(path: Path, start: bytes) -> None:
    """Check magic number, version and byte order."""
    if start[:4] != _MAGIC:
        raise InputError(
            f"{path.name} starts with {start[:4]!r}; expected {_MAGIC!r}, the start of a GGUF file"
        )
    if len(start) < 8:
        raise _damaged(path, f"it has {len(start)} bytes")
    version, swapped = struct.unpack("<I", start[4:])[0], struct.unpack(">I", start[4:])[0]
    if version not in _VERSIONS and swapped in _VERSIONS:
        raise InputError(
            f"{path.name} is big-endian; expected little-endian. Convert it with "
            "gguf_convert_endian.py of llama.cpp"
        )
    if version not in _VERSIONS:
        raise InputError(
            f"{path.name} is GGUF version {version}; expected {' or '.join(map(str, _VERSIONS))}. "
            "Convert the model again with a current llama.cpp"
        )


def _check_whole(path: Path, metadata: Mapping[str, Any]) -> None:
    """Check that the file is a whole model and not one part of a split model."""
    parts = metadata.get("split.count", 1)
    if parts not in (0, 1) or (_PART.search(path.name) and "split.count" not in metadata):
        raise InputError(
            f"{path.name} is one part of a model of {parts} files; expected one whole file. Join "
            "the parts with llama-gguf-split --merge of llama.cpp"
        )
    if not isinstance(metadata.get("general.architecture"), str):
        raise InputError(
            f"{path.name} has no general.architecture in its metadata; expected a language model's"
        )


def _tensors(
    path: Path, entries: list[tuple[Any, ...]], start: int, size: int
) -> tuple[GgufTensor, ...]:
    gguf = _package()
    tensors: dict[str, GgufTensor] = {}
    for name, shape, type_id, offset in entries:
        block, block_bytes = _block(path, gguf, name, type_id)
        if not shape or min(shape) < 1 or shape[-1] % block:
            raise _damaged(
                path, f"tensor {name[:80]!r} of blocks of {block} has shape {list(shape)}"
            )
        length = math.prod(shape) // block * block_bytes
        if start + offset + length > size:
            raise _damaged(
                path, f"it has {size} bytes and {name[:80]!r} ends at {start + offset + length}"
            )
        if name in tensors:
            raise _damaged(path, f"it has two tensors named {name[:80]!r}")
        kind = gguf.GGMLQuantizationType(type_id)
        tensors[name] = GgufTensor(name, path, kind.name, kind, shape, start + offset, length)
    return tuple(tensors.values())


def _block(path: Path, gguf: ModuleType, name: str, type_id: int) -> tuple[int, int]:
    """Number of weights and bytes of one block; the gguf package must support the type."""
    try:
        kind = gguf.GGMLQuantizationType(type_id)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        called = getattr(error, "name", None) or type_id
        raise InputError(
            f"{path.name}: tensor {name[:80]!r} is stored in type {called}, which this release of "
            "the gguf package cannot dequantise; expected F32, F16, BF16 or a supported quantised "
            "type. Upgrade gguf, or quantise the model to another type"
        ) from error
    return int(block), int(size)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path.name} is damaged: {what}; expected a whole GGUF file. Copy it again")
