"""Predicts misalignment from drift with a frozen regressor: linear, forest or boosted trees.

    prediction = intercept + <coefficients, x> + sum over trees of value[leaf(x)]

A linear model has no trees; a forest or boosted model has no coefficients. At a node, x goes left
if ``float32(x[feature]) <= threshold``, a comparison of float32 with float64, as in scikit-learn.
"""

from collections.abc import Mapping

import numpy as np

from layerguard.runtime.bundle.arrays import Shape
from layerguard.runtime.types import Array


def regressor_arrays(traits: int) -> dict[str, tuple[str, Shape]]:
    """Names, dtypes and shapes of a frozen regressor.

    The nodes of all trees form one list, in which each node precedes its children. ``tree_roots``
    are the root nodes. A leaf is its own left and right child.
    """
    return {
        "intercept": ("float64", ()),
        "coefficients": ("float64", (traits,)),
        "tree_roots": ("int32", (None,)),
        "tree_feature": ("int32", (None,)),
        "tree_threshold": ("float64", (None,)),
        "tree_left": ("int32", (None,)),
        "tree_right": ("int32", (None,)),
        "tree_value": ("float64", (None,)),
    }


def regressor_faults(params: Mapping[str, Array], traits: int) -> list[str]:
    """Trees with cycles or indices out of range; dtypes and shapes must already be valid."""
    left, right = params["tree_left"], params["tree_right"]
    feature, roots = params["tree_feature"], params["tree_roots"]
    nodes = len(left)
    own = np.arange(nodes)
    if any(len(params[f"tree_{name}"]) != nodes for name in ("feature", "threshold", "value")) or (
        len(right) != nodes
    ):
        return ["drift: the tree arrays differ in length; expected one entry a node"]
    faults = []
    leaf = (left == own) & (right == own)
    inner = (left > own) & (right > own) & (left < nodes) & (right < nodes)
    if not (leaf | inner).all():
        node = int(np.flatnonzero(~(leaf | inner))[0])
        faults.append(
            f"drift: node {node} has children {left[node]} and {right[node]}; expected both "
            f"between {node + 1} and {nodes - 1}, or both {node}"
        )
    if ((feature < 0) | (feature >= traits)).any():
        faults.append(f"drift: tree_feature names a trait outside 0..{traits - 1}")
    if ((roots < 0) | (roots >= nodes)).any():
        faults.append(f"drift: tree_roots names a node outside 0..{nodes - 1}")
    return faults


def predict(params: Mapping[str, Array], drift: Array) -> Array:
    """Predictions, float64 [n], for drift vectors [n, traits]; NaN for a non-finite vector.

    Equal to the frozen scikit-learn model, up to the order in which trees are summed.
    """
    drift = np.asarray(drift, dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = drift.astype(np.float32)
    left, right = params["tree_left"], params["tree_right"]
    feature, threshold = params["tree_feature"], params["tree_threshold"]
    node = np.tile(params["tree_roots"], (len(drift), 1))
    rows = np.arange(len(drift))[:, None]
    while (left[node] != node).any():
        goes_left = narrow[rows, feature[node]] <= threshold[node]
        node = np.where(goes_left, left[node], right[node])
    linear = np.where(np.isfinite(drift), drift, 0) @ params["coefficients"]
    predicted: Array = params["intercept"] + linear + params["tree_value"][node].sum(axis=1)
    predicted[~np.isfinite(narrow).all(axis=1)] = np.nan
    return predicted
