"""SIREN and Agent-SIREN in the graph; see ``runtime/detectors/siren.py`` for the formula."""

import itertools
from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The probability of harm of each row, float64 [rows]; NaN if a state is not finite.

    ReLU and softmax can turn a non-finite value into a finite one. Therefore every sum of every
    linear map is multiplied by zero, which gives NaN unless it is finite, and added to the score.
    """
    add, constant, axes = taps.nodes.add, taps.nodes.constant, taps.nodes.axes
    layers = params["layers"].tolist()
    states = taps.pooled(tap, layers)
    value = add("Concat", *states, axis=1) if len(states) > 1 else states[0]
    chosen, scale = _columns(params, taps.width)
    value = add("Mul", add("Gather", value, constant(chosen), axis=1), constant(scale))
    depth = sum(name.startswith("weight_") for name in params)
    poison = ""
    for i in range(depth):
        weight, bias = constant(params[f"weight_{i}"]), constant(params[f"bias_{i}"])
        value = add("Gemm", value, weight, bias, transB=1)
        zero = add("Mul", value, constant(0, np.float32))
        nothing = add("ReduceSum", zero, axes(1), keepdims=0)
        poison = add("Add", poison, nothing) if poison else nothing
        if i < depth - 1:
            value = add("Relu", value)
    shares = add("Softmax", taps.nodes.cast(value, DOUBLE), axis=-1)
    harmful = add("Gather", shares, constant(1, np.int64), axis=1)
    return add("Add", harmful, taps.nodes.cast(poison, DOUBLE))


def _columns(params: Mapping[str, Array], width: int) -> tuple[Array, Array]:
    """The columns to read from the concatenated layers, int64, and the weights of their layers."""
    parts = list(itertools.pairwise(params["neuron_offsets"].tolist()))
    columns = [
        params["neurons"][start:stop].astype(np.int64) + place * width
        for place, (start, stop) in enumerate(parts)
    ]
    scale = np.repeat(params["alpha"], [stop - start for start, stop in parts])
    return np.concatenate(columns), scale
