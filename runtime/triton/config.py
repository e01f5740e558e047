"""Model configurations of Triton, as text of the message ``ModelConfig``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "cuda"]

TYPES = {
    "bool": "TYPE_BOOL", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "float64": "TYPE_FP64",
    "object": "TYPE_STRING",
}  # fmt: skip
"""Triton's types by numpy's names."""
_KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output.

    Attributes:
        name: its name.
        dtype: numpy's name of its type; ``object`` for texts.
        dims: sizes without the batch dimension; -1 is any size.
        optional: whether a request may lack it.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False

    def to_text(self) -> str:
        """Its fields."""
        dims = ", ".join(map(str, self.dims))
        fields = [f"name: {_quoted(self.name)}", f"data_type: {TYPES[self.dtype]}"]
        fields += [f"dims: [ {dims} ]", *(["optional: true"] if self.optional else [])]
        return " ".join(fields)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model.

    Attributes:
        name: its name, which is that of its folder.
        backend: ``onnxruntime`` or ``python``.
        inputs: what it takes.
        outputs: what it gives.
        device: where its instances run.
        instances: number of instances.
        max_batch: most texts that Triton joins; 0: requests are not joined, and ``dims`` are whole
            shapes.
        parameters: texts by name.
    """

    name: str
    backend: Literal["onnxruntime", "python"]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    device: Device
    parameters: Mapping[str, str]
    instances: int = 1
    max_batch: int = 0

    def to_text(self) -> str:
        """The file ``config.pbtxt``."""
        lines = [
            f"name: {_quoted(self.name)}",
            f"backend: {_quoted(self.backend)}",
            f"max_batch_size: {self.max_batch}",
            *(f"input {{ {one.to_text()} }}" for one in self.inputs),
            *(f"output {{ {one.to_text()} }}" for one in self.outputs),
            f"instance_group {{ kind: {_KINDS[self.device]} count: {self.instances} }}",
        ]
        if self.max_batch:
            lines.append("dynamic_batching { }")
        lines += [
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in self.parameters.items()
        ]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of the text format; names and numbers are printable ASCII."""
    assert text.isascii(), text
    assert text.isprintable(), text
    return json.dumps(text)
