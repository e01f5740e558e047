"""WeightWatch in the graph; see ``runtime/detectors/weightwatch.py`` for the formula."""

from collections.abc import Mapping

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE, FLOAT, Nodes
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap

_RANGES = ("low", "high", "scale")
_SHORTEST, _LONGEST = 2.0**-100, 2.0**127
"""Bounds of squared lengths, as in the kernel; outside of them the cosine is NaN."""


def reads_roles(params: Mapping[str, Array]) -> bool:
    """Whether the score depends on the roles: not all roles have the same ranges."""
    return any((params[name] != params[name][:1]).any() for name in _RANGES)


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The largest excess of each row, float64 [rows]; NaN if an unmasked token has none.

    Excess increases with the distance from a range, so the largest excess over tokens equals that
    of the least and largest cosines, which the kernel uses. NaN is tracked separately, since
    ReduceMax need not propagate it.
    """
    nodes, add = taps.nodes, taps.nodes.add
    cosines, has_direction = _cosines(taps, tap, params)
    sound = has_direction
    if reads_roles(params):
        sound = add("And", sound, _is_role(nodes, taps.roles()))
    low, high, scale = _ranges(taps, params)
    outside = add("Max", add("Sub", low, cosines), add("Sub", cosines, high))
    excess = add("Div", outside, scale)
    of_token = add("ReduceMax", excess, nodes.axes(2), keepdims=0)
    # a token without a direction makes the row NaN, which the maximum must not hide
    counted = add("And", taps.valid, sound)
    finite = add("Where", counted, of_token, nodes.constant(-np.inf, np.float32))
    largest = add("ReduceMax", finite, nodes.axes(1), keepdims=0)
    unsound = nodes.cast(add("And", taps.valid, add("Not", sound)), FLOAT)
    some = add("ReduceMax", unsound, nodes.axes(1), keepdims=0)
    wrong = add("Greater", some, nodes.constant(0, np.float32))
    return nodes.cast(add("Where", wrong, nodes.constant(np.nan, np.float32), largest), DOUBLE)


def _cosines(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> tuple[str, str]:
    """Cosines of each token, float32 [rows, tokens, K], and whether its length is in bounds."""
    nodes, add = taps.nodes, taps.nodes.add
    directions, layers = params["directions"].astype(np.float32), params["layers"]
    parts, sound = [], ""
    for layer, states in zip(np.unique(layers), taps.tokens(tap), strict=True):
        products = add("MatMul", states, nodes.constant(directions[layers == layer].T))
        squared = add("ReduceSumSquare", states, nodes.axes(2), keepdims=1)
        parts.append(add("Div", products, add("Sqrt", squared)))
        good = add(
            "And",
            add("GreaterOrEqual", squared, nodes.constant(_SHORTEST, np.float32)),
            add("LessOrEqual", squared, nodes.constant(_LONGEST, np.float32)),
        )
        sound = add("And", sound, good) if sound else good
    whole = add("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    return whole, add("Squeeze", sound, nodes.axes(2))


def _ranges(taps: Taps, params: Mapping[str, Array]) -> list[str]:
    """Low, high and scale of each token's role, float32 [rows, tokens, K]; [K] if all are equal."""
    nodes = taps.nodes
    if not reads_roles(params):
        return [nodes.constant(params[name][0]) for name in _RANGES]
    zero = nodes.constant(0, np.int64)
    known = nodes.add("Where", _is_role(nodes, taps.roles()), taps.roles(), zero)
    return [nodes.add("Gather", nodes.constant(params[name]), known, axis=0) for name in _RANGES]


def _is_role(nodes: Nodes, roles: str) -> str:
    """Bool [rows, tokens]: whether the role is 0 to 3; any other value fails closed."""
    least = nodes.add("GreaterOrEqual", roles, nodes.constant(0, np.int64))
    return nodes.add("And", least, nodes.add("Less", roles, nodes.constant(4, np.int64)))
