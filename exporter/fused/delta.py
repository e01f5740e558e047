"""What tuning adds, in the graph; see ``runtime/detectors/delta.py`` for the formula."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE, INT64
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The largest deviation of each row, float64 [rows]; NaN if a value is not finite.

    A row without tokens gets -inf.
    """
    add, constant, axes = taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    least = constant(-np.inf, np.float32)
    columns = [
        add("ReduceMax", add("Where", taps.valid, name, least), axes(1), keepdims=1)
        for name in taps.outputs(tap)
    ]
    values = taps.nodes.cast(add("Concat", *columns, axis=1), DOUBLE)
    moved = add("Sub", values, constant(params["centre"].astype(np.float64)))
    deviations = add("Div", moved, constant(params["scale"].astype(np.float64)))
    largest = add("ReduceMax", deviations, axes(1), keepdims=0)
    total = add("ReduceSum", deviations, axes(1), keepdims=0)  # ReduceMax may skip a NaN
    tokens = add("ReduceSum", taps.nodes.cast(taps.valid, INT64), axes(1), keepdims=0)
    nothing = add("Equal", tokens, constant(0, np.int64))  # of this row in a chunk
    wrong = constant(np.nan, np.float64)
    other = add("Where", nothing, constant(-np.inf, np.float64), wrong)
    return add("Where", taps.nodes.finite(total), largest, other)
