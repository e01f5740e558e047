"""LayerTracer's quantities as its definitions say them, in float64.

Source: LayerTracer, arXiv 2604.20556, abstract: the layer where the target's probability first
rises significantly, and the layer whose masking moves the output most in Jensen-Shannon divergence.
The thresholds of "significantly" and the masks are ours.
"""

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def softmax(logits: npt.ArrayLike) -> Doubles:
    """Probabilities of logits [vocabulary]."""
    values = np.asarray(logits, np.float64)
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def js_divergence_nats(p: Doubles, q: Doubles) -> float:
    """(KL(P|M) + KL(Q|M)) / 2, M = (P + Q) / 2, of probabilities [vocabulary]."""
    m = (p + q) / 2
    halves = [sum(a * math.log(a / b) for a, b in zip(x, m, strict=True) if a > 0) for x in (p, q)]
    return sum(halves) / 2


def max_ratio_layer(probability: list[float], floor: float = 1e-12) -> int:
    """The layer of the largest p_l / max(p_{l-1}, floor); the first of equals."""
    best, layer = -math.inf, 0
    for i in range(1, len(probability)):
        ratio = probability[i] / max(probability[i - 1], floor)
        if ratio > best:
            best, layer = ratio, i
    return layer


def first_rise_layer(
    probability: list[float], least_ratio: float, least_probability: float, floor: float = 1e-12
) -> int | None:
    """The first layer whose ratio and probability are both large enough."""
    for i in range(1, len(probability)):
        ratio = probability[i] / max(probability[i - 1], floor)
        if ratio >= least_ratio and probability[i] >= least_probability:
            return i
    return None
