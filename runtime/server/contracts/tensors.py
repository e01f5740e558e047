"""Tensors of the Open Inference Protocol, version 2, in JSON and in binary.

No contract itself. A binary tensor stands behind the JSON of its message, in row-major order and
little-endian; each element of type BYTES has its length before it, in four bytes.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from layerguard.runtime.errors import InputError

HEADER = "inference-header-content-length"
"""The HTTP header with the length of the JSON before binary tensors."""

_FORMATS = {"FP32": "f", "BOOL": "?"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output with one axis.

    Attributes:
        name: its name.
        datatype: ``FP32``, ``BOOL`` or ``BYTES``.
        values: numbers, flags or texts.
    """

    name: str
    datatype: str
    values: Sequence[Any]

    def pack(self) -> bytes:
        """The values in binary."""
        if self.datatype == "BYTES":
            encoded = [text.encode() for text in self.values]
            return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
        return struct.pack(f"<{len(self.values)}{_FORMATS[self.datatype]}", *self.values)


def message(head: Mapping[str, Any], tensors: Iterable[tuple[Tensor, bool]]) -> tuple[bytes, bytes]:
    """The JSON of a message, and the binary tensors behind it.

    Args:
        head: other keys of the message.
        tensors: its outputs, each with whether it is binary.
    """
    outputs, packed = [], b""
    for tensor, is_binary in tensors:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype}
        output["shape"] = [len(tensor.values)]
        if is_binary:
            part = tensor.pack()
            packed += part
            output["parameters"] = {"binary_data_size": len(part)}
        else:
            output["data"] = list(tensor.values)
        outputs.append(output)
    return json.dumps({**head, "outputs": outputs}).encode(), packed


def split(body: bytes, header: str | None) -> tuple[Any, bytes]:
    """The JSON of a message, and the binary tensors behind it.

    Args:
        body: the message.
        header: value of ``HEADER``; None if the message is JSON alone.

    Raises:
        InputError: there is no JSON of that length.
    """
    length = len(body) if header is None else int(header) if header.isdecimal() else -1
    if not 0 <= length <= len(body):
        raise InputError(
            f"{HEADER}: found {header!r} in a body of {len(body)} bytes; expected the length of "
            "the JSON in it"
        )
    try:
        return json.loads(body[:length]), body[length:]
    except (ValueError, RecursionError) as error:
        raise InputError(f"body: found no JSON ({error}); expected an object") from error


def read_texts(tensor: Mapping[str, Any], binary: bytes) -> list[str]:
    """The texts of an input, in row-major order.

    Args:
        tensor: its description in the JSON.
        binary: its part behind the JSON, if it has one.

    Raises:
        InputError: it is no sound tensor of texts.
    """
    if tensor.get("datatype") != "BYTES":
        raise InputError(f"datatype: found {tensor.get('datatype')!r}; expected BYTES")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"shape: found {shape!r}; expected a list of sizes"[:300])
    texts = list(_unpacked(binary)) if "data" not in tensor else list(_flat(tensor["data"]))
    if len(texts) != prod(shape):
        raise InputError(f"data: found {len(texts)} texts; expected {prod(shape)}, by the shape")
    if not texts:
        raise InputError(f"data: found no text, in the shape {shape}; expected at least one"[:300])
    return texts


def _unpacked(binary: bytes) -> Iterator[str]:
    """The texts of a binary tensor."""
    at = 0
    while at < len(binary):
        if at + 4 > len(binary):
            raise InputError("data: found a part of a length; expected four bytes")
        (length,) = struct.unpack_from("<I", binary, at)
        at += 4 + length
        if at > len(binary):
            raise InputError(f"data: found fewer bytes than a text's length, {length}")
        try:
            yield binary[at - length : at].decode()
        except UnicodeDecodeError as error:
            raise InputError(f"data: {error}; expected UTF-8") from error


def _flat(data: Any) -> Iterator[str]:
    """The texts of a JSON tensor, whose lists may be nested."""
    for item in data if isinstance(data, list) else [data]:
        if isinstance(item, list):
            yield from _flat(item)
        elif isinstance(item, str):
            yield item
        else:
            raise InputError(f"data: found {type(item).__name__}; expected texts")
