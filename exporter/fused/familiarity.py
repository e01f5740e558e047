"""Familiarity in the graph; see ``runtime/detectors/familiarity.py`` for the formula."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The distance of each row, float64 [rows]; not finite if a state is not finite."""
    add, constant, axes = taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    (state,) = taps.pooled(tap, [int(params["layer"])])
    row = add("Unsqueeze", taps.nodes.cast(state, DOUBLE), axes(1))
    moved = add("Sub", row, constant(params["centres"][None].astype(np.float64)))
    z = add("Div", moved, constant(params["scale"].astype(np.float64)))  # [rows, K, hidden]
    square = add("ReduceSumSquare", z, axes(2), keepdims=0)
    if len(params["directions"]):
        along = add("MatMul", z, constant(params["directions"].T.astype(np.float64)))
        square = add("Sub", square, add("ReduceSumSquare", along, axes(2), keepdims=0))
    least = add("ReduceMin", square, axes(1), keepdims=0)
    zero, nan = constant(0, np.float64), constant(np.nan, np.float64)
    distance = add("Sqrt", add("Where", add("Less", least, zero), zero, least))
    total = add("ReduceSum", square, axes(1), keepdims=0)  # ReduceMin may skip a NaN
    return add("Where", taps.nodes.finite(total), distance, nan)
