"""What tuning adds, in the graph; see ``runtime/detectors/delta.py`` for the formula."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The largest deviation of each row, float64 [rows]; NaN if a value is not finite.

    A row without tokens gets -inf.
    """
    add, constant, axes = taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    columns = [add("Unsqueeze", name, axes(2)) for name in taps.outputs(tap)]
    values = add("Concat", *columns, axis=2)  # [rows, tokens, K]
    valid, zero = add("Unsqueeze", taps.valid, axes(2)), constant(0, np.float32)
    real = add("Where", valid, values, constant(-np.inf, np.float32))
    largest = taps.nodes.cast(add("ReduceMax", real, axes(1), keepdims=0), DOUBLE)
    moved = add("Sub", largest, constant(params["centre"].astype(np.float64)))
    deviations = add("Div", moved, constant(params["scale"].astype(np.float64)))
    score = add("ReduceMax", deviations, axes(1), keepdims=0)
    # ReduceMax may skip a NaN
    total = add("ReduceSum", add("Where", valid, values, zero), axes(1, 2), keepdims=0)
    sound = taps.nodes.finite(taps.nodes.cast(total, DOUBLE))
    return add("Where", sound, score, constant(np.nan, np.float64))
