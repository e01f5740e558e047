"""A graph's module with the methods of an ONNX Runtime session, for checks without a trace."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from layerguard.exporter.graph.spec import GraphSpec
from layerguard.runtime.types import Array


class InPyTorch:
    """Runs the module of a graph like ``onnxruntime.InferenceSession`` runs the graph."""

    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec

    def get_inputs(self) -> list[Any]:
        """Names, shapes and types of the inputs."""
        return [
            SimpleNamespace(name=item.name, shape=list(item.example.shape), type="tensor(float)")
            for item in self._spec.inputs
        ]

    def get_outputs(self) -> Sequence[Any]:
        """The outputs, with their names."""
        return self._spec.outputs

    def run(self, _: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """All outputs."""
        inputs = [torch.from_numpy(feeds[item.name]) for item in self._spec.inputs]
        with torch.inference_mode():
            return [value.numpy() for value in self._spec.module(*inputs)]
