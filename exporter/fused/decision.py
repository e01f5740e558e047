"""The decision in the graph: thresholds, p-values and the flag over all detectors.

The rules are those of ``runtime/detectors/decide.py``, ``runtime/decision/policy.py`` and
``runtime/decision/blocks.py``, with the thresholds of all traffic.
"""

from collections.abc import Sequence

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE, INT64, Nodes
from layerguard.runtime.decision.blocks import Blocks
from layerguard.runtime.types import Array


def p_value(nodes: Nodes, score: str, clean_scores: Array) -> str:
    """(1 + #{clean >= score}) / (n + 1), float64 [texts]; 1 / (n + 1) for non-finite scores."""
    add, constant = nodes.add, nodes.constant
    column = add("Unsqueeze", score, nodes.axes(1))
    at_least = add("GreaterOrEqual", constant(clean_scores.reshape(1, -1)), column)
    count = add("ReduceSum", nodes.cast(at_least, DOUBLE), nodes.axes(1), keepdims=0)
    known = add("Where", nodes.finite(score), count, constant(0, np.float64))
    one = constant(1, np.float64)
    return add("Div", add("Add", known, one), constant(len(clean_scores) + 1, np.float64))


def flagged(nodes: Nodes, score: str, threshold: str) -> str:
    """Bool [texts]: the score is not finite or above the threshold, or the threshold is NaN."""
    within = nodes.add("LessOrEqual", score, threshold)
    return nodes.add("Not", nodes.add("And", nodes.finite(score), within))


def combined(nodes: Nodes, scores: Sequence[str], flags: Sequence[str], policy: str) -> str:
    """Bool [texts]: any, or all, of the deciding detectors flag, or a score is not finite."""
    every = _fold(nodes, "And" if policy == "all" else "Or", flags)
    valid = _fold(nodes, "And", [nodes.finite(score) for score in scores])
    return nodes.add("Or", every, nodes.add("Not", valid))


def guard_p_value(nodes: Nodes, scores: Sequence[str], blocks: Blocks) -> str:
    """The p-value of the whole guard, float64 [texts]: the least target at which it would flag.

    1 / (n + 1) if a score is not finite.
    """
    add, constant = nodes.add, nodes.constant
    last = blocks.n + 1
    cuts = []
    for score, (keys, numbers) in zip(scores, blocks.columns, strict=True):
        column = add("Unsqueeze", score, nodes.axes(1))
        row = constant(np.array(keys, np.float64).reshape(1, -1))
        before = (
            add("LessOrEqual", row, add("Neg", column)) if blocks.any else add("Less", row, column)
        )
        place = add("ReduceSum", nodes.cast(before, INT64), nodes.axes(1), keepdims=0)
        cuts.append(add("Gather", constant(np.array([*numbers, last], np.int64)), place))
    least = add("Min", *cuts)
    if not blocks.any:
        least = add("Sub", constant(last + 1, np.int64), least)
    valid = _fold(nodes, "And", [nodes.finite(score) for score in scores])
    known = add("Where", valid, least, constant(1, np.int64))
    return add("Div", nodes.cast(known, DOUBLE), constant(last, np.float64))


def _fold(nodes: Nodes, operator: str, values: Sequence[str]) -> str:
    """Combine all values with a binary operator."""
    folded, *rest = values
    for value in rest:
        folded = nodes.add(operator, folded, value)
    return folded
