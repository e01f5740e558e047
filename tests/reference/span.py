"""The linear probe on every token and its best window, in float64, as the formula says.

logit_t = bias + sum over k of <w_k, h_{layer k}[t]>; the score is the largest mean of w
neighbouring logits, or the mean of all logits of a text shorter than w. Multiple-instance learning
takes the maximum over the parts of a text in the same way: Dietterich, Lathrop and Lozano-Perez,
"Solving the multiple instance problem with axis-parallel rectangles", 1997.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def logits(
    states: npt.ArrayLike, weights: npt.ArrayLike, layers: npt.ArrayLike, bias: float
) -> Doubles:
    """(tokens,), of states (layers, tokens, D), weights (K, D) and their state indices (K,)."""
    h, w = np.asarray(states, np.float64), np.asarray(weights, np.float64)
    return bias + sum(h[layer] @ row for layer, row in zip(np.asarray(layers), w, strict=True))


def best_window(logit: Doubles, window: int) -> tuple[float, int]:
    """The largest mean of ``window`` neighbouring logits, and its first token."""
    size = min(window, len(logit))
    means = [logit[i : i + size].mean() for i in range(len(logit) - size + 1)]
    first = int(np.argmax(means))
    return float(means[first]), first
