"""WeightWatch's published ranges and flags, in float64: arXiv 2508.00161, item after item."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

MARGIN = 0.01


def extremes(item: Sequence[Any], directions: Sequence[Any]) -> tuple[Doubles, Doubles]:
    """Least and greatest cosine (K,) of an item [role][state][token] over one role's tokens.

    Args:
        item: states of the role's tokens, by state index.
        directions: by state index, unit vectors.
    """
    low, high = [], []
    for state, mine in zip(item, directions, strict=True):
        if not len(mine):
            continue
        h = np.asarray(state, np.float64)
        cosine = h @ np.asarray(mine, np.float64).T / np.linalg.norm(h, axis=1, keepdims=True)
        low.append(cosine.min(axis=0))
        high.append(cosine.max(axis=0))
    return np.concatenate(low), np.concatenate(high)


def flagged(low: Doubles, high: Doubles, minima: Doubles, maxima: Doubles) -> bool:
    """Whether any extreme lies outside of [low - 0.01, high + 0.01]; NaN does."""
    inside = [(low - MARGIN <= x) & (x <= high + MARGIN) for x in (minima, maxima)]
    return bool(np.any(~inside[0] | ~inside[1]))


def percentile_ranges(minima: Doubles, maxima: Doubles, share: float) -> tuple[Doubles, Doubles]:
    """Bounds (K,) from the items' extremes (n, K), trimmed by a share."""
    return (
        np.percentile(minima, 100 * share, axis=0),
        np.percentile(maxima, 100 * (1 - share), axis=0),
    )
