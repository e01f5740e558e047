"""Oracle of the drift monitor in float64, written from the paper, one number at a time.

Trait-space Monitoring for Emergent Misalignment During SFT, arXiv 2606.07631: trait directions
(phase 1), checkpoint measurement (phase 2), the detector, the step-aware alarm (version 2).
"""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def direction(positive: Sequence[Vector], negative: Sequence[Vector]) -> list[float]:
    """Unit direction v = mean(P) - mean(N), divided by its length."""
    difference = [p - n for p, n in zip(_mean(positive), _mean(negative), strict=True)]
    length = _length(difference)
    return [value / length for value in difference]


def projection(states: Sequence[Vector], unit: Vector) -> float:
    """Projection pi = mean_i <h_i, v>."""
    return math.fsum(_dot(state, unit) for state in states) / len(states)


def norm(base: Sequence[Vector]) -> float:
    """N = mean_i ||h_i|| over the base model's states."""
    return math.fsum(map(_length, base)) / len(base)


def drift(states: Sequence[Vector], base: Sequence[Vector], unit: Vector) -> float:
    """(pi_s - pi_0) / N."""
    return (projection(states, unit) - projection(base, unit)) / norm(base)


def balanced_accuracy(predicted: Vector, rates: Vector, tau: float) -> float:
    """Mean of the shares of dangerous checkpoints above tau and of others within it."""
    pairs = list(zip(predicted, rates, strict=True))
    above = [p > tau for p, rate in pairs if rate > tau]
    within = [not p > tau for p, rate in pairs if not rate > tau]
    return (sum(above) / len(above) + sum(within) / len(within)) / 2


def _mean(vectors: Sequence[Vector]) -> list[float]:
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def _dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _length(vector: Vector) -> float:
    return math.sqrt(_dot(vector, vector))
