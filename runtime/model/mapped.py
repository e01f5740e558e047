"""Memory-maps the external weights of ONNX graphs, shared by all sessions and processes.

The graph is parsed here, without the onnx package, which the runtime does not depend on.

Source: https://github.com/onnx/onnx, ``onnx/onnx.proto3``, for the format, and
https://protobuf.dev/programming-guides/encoding for its encoding.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.types import Array

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
"""Field numbers of ``ModelProto.graph``, ``GraphProto.initializer`` and of ``TensorProto``."""

_EXTERNAL = 1
_DTYPES: Mapping[int, type[np.generic]] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64
}  # fmt: skip
"""numpy types by ONNX data type. ONNX Runtime itself reads tensors of any other type."""


class MappedWeights:
    """The weights of a folder's graphs, as views of read-only memory maps.

    Each file is mapped only once, even if several graphs use it. A map reads the file as long as it
    lives: whoever changes the file's content in place changes the weights.
    """

    def __init__(self) -> None:
        self._maps: dict[str, Array] = {}

    def tensors_of(self, graph: Path) -> dict[str, Array]:
        """The graph's external tensors by name, if they can be mapped.

        A malformed graph gives no tensors, so that ONNX Runtime reports the fault.
        """
        views = {}
        try:
            for tensor in _tensors(memoryview(graph.read_bytes())):
                view = self._view(graph.parent, tensor)
                if view is not None:
                    views[_text(tensor[_NAME][0])] = view
        except (ValueError, TypeError, IndexError, KeyError, OSError):
            return {}
        return views

    def _view(self, folder: Path, tensor: Mapping[int, list[Any]]) -> Array | None:
        dtype = _DTYPES.get(tensor[_DATA_TYPE][0])
        if tensor.get(_DATA_LOCATION) != [_EXTERNAL] or dtype is None:
            return None
        entries = [dict(_fields(entry)) for entry in tensor[_EXTERNAL_DATA]]
        where = {_text(entry[1]): _text(entry[2]) for entry in entries}
        name, offset, length = where["location"], int(where["offset"]), int(where["length"])
        if Path(name).name != name or offset % np.dtype(dtype).itemsize:
            return None
        if name not in self._maps:
            self._maps[name] = np.memmap(folder / name, np.uint8, "r")
        data = self._maps[name][offset : offset + length].view(dtype)
        return data.reshape(list(_dims(tensor.get(_DIMS, []))))


def _tensors(model: memoryview) -> Iterator[dict[int, list[Any]]]:
    """The fields, by number, of each initializer of the model's graph."""
    for number, graph in _fields(model):
        if number != _GRAPH:
            continue
        for kind, tensor in _fields(graph):
            if kind != _INITIALIZER:
                continue
            fields: dict[int, list[Any]] = {}
            for part, value in _fields(tensor):
                fields.setdefault(part, []).append(value)
            yield fields


def _text(value: memoryview) -> str:
    return value.tobytes().decode() if isinstance(value, memoryview) else ""


def _dims(values: list[Any]) -> Iterator[int]:
    """The dimensions of a tensor, which may be packed or not."""
    for value in values:
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            size, place = _varint(value, place)
            yield size


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number and value of each field; the value is an int or the field's bytes.

    Raises:
        ValueError: a field has a wire type that ONNX does not use, or exceeds the message.
        TypeError: the message is a number.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if place + size > len(message):
            raise ValueError("field longer than its message")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A variable-length integer, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
