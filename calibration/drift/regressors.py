"""The published regressors, and their conversion into plain arrays.

The settings are those of arXiv 2606.07631; features are not scaled.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

from layerguard.runtime.drift.manifest import RegressorName
from layerguard.runtime.types import Array

REGRESSORS: Mapping[RegressorName, Callable[[], Any]] = {
    "random_forest": lambda: RandomForestRegressor(
        n_estimators=100, max_depth=5, min_samples_leaf=5, random_state=42
    ),
    "gradient_boosting": lambda: GradientBoostingRegressor(
        n_estimators=100, max_depth=3, learning_rate=0.1, random_state=42
    ),
    "ridge": lambda: Ridge(alpha=1.0),
}
"""In the published order; ties between regressors go to the first."""


def freeze_regressor(model: Any, traits: int) -> dict[str, Array]:
    """Convert a fitted regressor into the arrays of ``runtime/drift/regressor.py``."""
    if isinstance(model, RandomForestRegressor):
        trees = [tree.tree_ for tree in model.estimators_]
        return _sum_of_trees(trees, 1 / len(trees), 0.0, traits)
    if isinstance(model, GradientBoostingRegressor):
        trees = [tree.tree_ for tree in model.estimators_[:, 0]]
        return _sum_of_trees(trees, model.learning_rate, model.init_.constant_.item(), traits)
    empty = _sum_of_trees([], 1.0, float(model.intercept_), traits)
    return {**empty, "coefficients": np.array(model.coef_, dtype=np.float64)}


def _sum_of_trees(
    trees: Sequence[Any], scale: float, intercept: float, traits: int
) -> dict[str, Array]:
    """Concatenate the trees; a leaf is its own child, where scikit-learn has -1."""
    sizes = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *sizes])[:-1]
    columns: dict[str, list[Array]] = {
        name: [np.empty(0)] for name in ("feature", "threshold", "left", "right", "value")
    }
    for tree, root in zip(trees, roots, strict=True):
        own = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        columns["feature"].append(np.where(leaf, 0, tree.feature))
        columns["threshold"].append(np.where(leaf, 0.0, tree.threshold))
        columns["left"].append(root + np.where(leaf, own, tree.children_left))
        columns["right"].append(root + np.where(leaf, own, tree.children_right))
        columns["value"].append(np.where(leaf, scale * tree.value[:, 0, 0], 0.0))
    nodes = {f"tree_{name}": np.concatenate(parts) for name, parts in columns.items()}
    whole = ("tree_feature", "tree_left", "tree_right")
    return {
        "intercept": np.array(intercept),
        "coefficients": np.zeros(traits),
        "tree_roots": roots.astype(np.int32),
        **{name: x.astype(np.int32 if name in whole else np.float64) for name, x in nodes.items()},
    }
