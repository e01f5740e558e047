"""One graph of a bundle: what is traced, and how the file is then proved."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layerguard.exporter.proof.comparison import Comparison
from layerguard.runtime.bundle.manifest import OutputCard


@dataclass(frozen=True, slots=True, eq=False)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: in the graph.
        example: what the trace runs on; every free axis longer than one, no two alike unless they
            have one name: else the trace takes them for constants, or for one another.
        axes: names of the free axes, by number; the others are fixed.
    """

    name: str
    example: Tensor
    axes: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A graph before it is written.

    Attributes:
        mode: what the manifest calls it.
        module: its forward takes the inputs in order and returns the outputs in order.
        inputs: of the graph.
        outputs: of the graph.
        prove: compares an ``onnxruntime.InferenceSession`` on the written file with what PyTorch
            gives in float32 and float64; takes the session, and a ``tick`` to tell how far it is.
    """

    mode: Literal["states", "pooled", "decode", "analysis"]
    module: nn.Module
    inputs: tuple[GraphInput, ...]
    outputs: tuple[OutputCard, ...]
    prove: Callable[..., Comparison]


def text_inputs() -> tuple[GraphInput, GraphInput]:
    """``input_ids`` and ``attention_mask``, int64 [batch, tokens] with some padding."""
    ids = torch.arange(16).reshape(2, 8) % 7 + 1
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    axes = {0: "batch", 1: "tokens"}
    return GraphInput("input_ids", ids, axes), GraphInput("attention_mask", mask, axes)
