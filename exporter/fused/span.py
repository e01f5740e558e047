"""The best window of a probe in the graph; see ``csrc/layerguard_api.h`` for the formula."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE, FLOAT
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The largest mean of a window of each row's logits, float64 [rows].

    NaN if a logit of an unmasked token is not finite: it is tracked separately, since ReduceMax
    need not propagate it. A window's sum is a difference of running sums in float64, whose rounding
    is far below that of the float32 logits. The unmasked tokens of a row are neighbours.
    """
    nodes, add, constant, axes = taps.nodes, taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    window = int(params["window"])
    logits, valid = taps.joined(_logits(taps, tap, params), window)
    infinite = constant(np.inf, np.float64)
    sound = add("Less", add("Abs", logits), infinite)
    kept = add("Where", add("And", valid, sound), logits, constant(0, np.float64))
    sums = add("CumSum", kept, constant(1, np.int64))
    number = add("CumSum", nodes.cast(valid, DOUBLE), constant(1, np.int64))
    count = add("ReduceMax", number, axes(1), keepdims=1)
    size = add("Min", count, constant(float(window), np.float64))
    zeros = constant(np.array([0, window, 0, 0]), np.int64)
    before = add("Slice", add("Pad", sums, zeros), axes(0), axes(-window), axes(1))
    means = add("Div", add("Sub", sums, before), size)
    full = add("And", valid, add("GreaterOrEqual", number, size))
    lowest = add("Where", full, means, add("Neg", infinite))
    largest = add("ReduceMax", lowest, axes(1), keepdims=0)
    unsound = nodes.cast(add("And", valid, add("Not", sound)), DOUBLE)
    wrong = add("Greater", add("ReduceMax", unsound, axes(1), keepdims=0),
                constant(0, np.float64))  # fmt: skip
    rounded = nodes.cast(nodes.cast(largest, FLOAT), DOUBLE)  # as in the kernel
    return add("Where", wrong, constant(np.nan, np.float64), rounded)


def _logits(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The logit of each token, float64 [rows, tokens]; rounded to float32, as in the kernel."""
    nodes, add = taps.nodes, taps.nodes.add
    total = nodes.constant(float(params["bias"]), np.float64)
    for states, weights in zip(taps.tokens(tap), params["weights"], strict=True):
        product = add("MatMul", states, nodes.constant(weights))
        total = add("Add", total, nodes.cast(product, DOUBLE))
    return nodes.cast(nodes.cast(total, FLOAT), DOUBLE)
