"""LCF in the graph; see ``runtime/detectors/lcf.py`` for the formula and its source."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The score of each row, float64 [rows]; not finite if a state is not finite.

    Precision as in the kernel: float32 up to each layer's sum of squares, then float64.
    """
    add, constant, axes = taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    depth, width = params["mu"].shape
    inverse = (1.0 / params["sigma"].astype(np.float64)).astype(np.float32)
    states = taps.pooled(tap, range(depth + 1))
    whole = add("Concat", *states, axis=1)  # [rows, (L + 1) * hidden]
    end = axes((depth + 1) * width)
    after = add("Slice", whole, axes(width), end, axes(1))
    before = add("Slice", whole, axes(0), axes(depth * width), axes(1))
    moved = add("Sub", add("Sub", after, before), constant(params["mu"].reshape(1, -1)))
    scaled = add("Mul", moved, constant(inverse.reshape(1, -1)))
    by_layer = add("Reshape", scaled, axes(-1, depth, width))
    squared = add("ReduceSumSquare", by_layer, axes(2), keepdims=0)
    length = add("Sqrt", taps.nodes.cast(squared, DOUBLE))
    z = add("Div", add("Sub", length, constant(params["score_mean"])),
            constant(params["score_scale"]))  # fmt: skip
    offset = add("Sub", z, constant(params["centre"]))
    turned = add("MatMul", offset, constant(params["precision"]))
    form = add("ReduceSum", add("Mul", turned, offset), axes(1), keepdims=0)
    return add("Sqrt", form)
