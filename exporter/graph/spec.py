"""One graph of a bundle before it is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layerguard.exporter.proof.differences import Proof
from layerguard.runtime.bundle.manifest import OutputCard


@dataclass(frozen=True, slots=True, eq=False)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: in the graph.
        example: the value for the trace. Free axes must be longer than 1, and free axes with
            different names must have different lengths; otherwise the trace makes them constant or
            equal.
        axes: names of the free axes by index; the other axes are fixed.
    """

    name: str
    example: Tensor
    axes: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class GraphSpec:
    """A graph before it is written.

    Attributes:
        mode: its name in the manifest.
        module: its forward method takes the inputs in order and returns the outputs in order.
        inputs: of the graph.
        outputs: of the graph.
        prove: compares an ``onnxruntime.InferenceSession`` on the written file with PyTorch in
            float32 and float64; takes the session and a ``tick`` for progress.
    """

    mode: Literal["states", "pooled", "decode", "analysis"]
    module: nn.Module
    inputs: tuple[GraphInput, ...]
    outputs: tuple[OutputCard, ...]
    prove: Callable[..., Proof]


def text_inputs() -> tuple[GraphInput, GraphInput]:
    """``input_ids`` and ``attention_mask``, int64 [batch, tokens] with some padding."""
    ids = torch.arange(16).reshape(2, 8) % 7 + 1
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    axes = {0: "batch", 1: "tokens"}
    return GraphInput("input_ids", ids, axes), GraphInput("attention_mask", mask, axes)
