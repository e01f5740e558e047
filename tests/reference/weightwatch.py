"""WeightWatch as its paper and reference code have it, in float64.

Source: "Watch the Weights", arXiv 2508.00161. cosine_{k,t} = <u_k, h_t> / ||h_t|| at the state that
direction k belongs to; of each role the least and largest over its tokens; a text is flagged where
one lies outside of the recorded range by more than EPS.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

EPS = 0.01
ROLES = 4


def cosines(states: npt.ArrayLike, directions: npt.ArrayLike, layers: Sequence[int]) -> Doubles:
    """(K, tokens), of states (layers, tokens, D), directions (K, D) and their state indices."""
    h, u = np.asarray(states, np.float64), np.asarray(directions, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                h[layer] @ row / np.linalg.norm(h[layer], axis=1)
                for layer, row in zip(layers, u, strict=True)
            ]
        )


def extremes(cosine: Doubles, roles: npt.ArrayLike) -> Doubles:
    """(4, 2, K) of cosines (K, tokens) and roles (tokens,); infinite for a role without tokens."""
    found = np.empty((ROLES, 2, len(cosine)))
    found[:, 0], found[:, 1] = np.inf, -np.inf
    for role in np.unique(np.asarray(roles)):
        mine = cosine[:, np.asarray(roles) == role]
        found[role] = mine.min(axis=1), mine.max(axis=1)
    return found


def excess(found: Doubles, low: npt.ArrayLike, high: npt.ArrayLike, scale: npt.ArrayLike) -> float:
    """The largest excess of extremes (4, 2, K) over ranges (4, K), over roles that have tokens."""
    seen = ~np.isposinf(found[:, 0])
    outside = np.maximum(np.asarray(low) - found[:, 0], found[:, 1] - np.asarray(high))
    return float((outside / np.asarray(scale))[seen].max())


def flagged(found: Doubles, low: Doubles, high: Doubles) -> bool:
    """The published rule on one role's extremes (2, K): not within an interval (K,) by EPS."""
    return bool((~((low - EPS <= found) & (found <= high + EPS))).any())
