"""A part's module under a session's methods: what would be traced, seconds before it is."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from layerguard.exporter.graph.part import Part
from layerguard.runtime.types import Array


class InPyTorch:
    """Runs a part as ``onnxruntime.InferenceSession`` runs its graph."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def get_inputs(self) -> list[Any]:
        """Names, shapes and types, as ONNX Runtime tells them."""
        return [
            SimpleNamespace(name=item.name, shape=list(item.example.shape), type="tensor(float)")
            for item in self._part.inputs
        ]

    def get_outputs(self) -> Sequence[Any]:
        """Their names."""
        return self._part.outputs

    def run(self, _: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """All outputs."""
        given = [torch.from_numpy(feeds[item.name]) for item in self._part.inputs]
        with torch.inference_mode():
            return [value.numpy() for value in self._part.module(*given)]
