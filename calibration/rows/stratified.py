"""Folds with similar shares of each label, which keep groups together."""

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.types import Array

LEAST_GROUPS = 10
"""Fewest groups of each label that can be spread over the folds."""


def stratified_folds(
    labels: Array, codes: Array, count: int, seed: int
) -> list[tuple[Array, Array]]:
    """``count`` pairs of (training rows, held-out rows) with similar shares of each label."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, codes))


def check_counts(method: str, labels: Array, codes: Array) -> None:
    """Refuse labels that cannot be spread over the folds.

    Raises:
        CalibrationError: a label has too few groups; the message names ``method``.
    """
    for label, name in ((0, "clean"), (1, "harmful")):
        count = len(np.unique(codes[labels == label]))
        if count < LEAST_GROUPS:
            raise CalibrationError(
                f"{method} found {count} {name} texts (label {label}); expected at least "
                f"{LEAST_GROUPS} of each label; use several hundred"
            )
