"""The statistics of Layerwise Convergence Fingerprints, arXiv 2604.24542, section "Method".

A row is one prompt. D[i, l] = h_{l+1} - h_l at its last token; S[i, l] is the length of D[i, l]
after standardising every dimension; Z standardises S; the score is Z's Mahalanobis length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

from layerguard.runtime.types import Array

ABSOLUTE_FLOOR = 1e-8
"""Least standard deviation, as published."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How lengths become one score: z = (S - mean) / scale, sqrt((z - centre)' P (z - centre)).

    All float64: ``mean``, ``scale``, ``centre`` [L]; ``precision`` [L, L].
    """

    mean: Array
    scale: Array
    centre: Array
    precision: Array

    def z(self, lengths: Array) -> Array:
        """Lengths S, float64 [n, L], standardised."""
        standard: Array = (lengths - self.mean) / self.scale
        return standard

    def score(self, lengths: Array) -> Array:
        """The score of each row of S, float64 [n]."""
        return mahalanobis(self.z(lengths), self.centre, self.precision)


def differences(states: Array) -> Iterator[Array]:
    """D of one layer after the other, float64 [n, hidden]; subtracted in float32, as published."""
    for layer in range(states.shape[1] - 1):
        yield (states[:, layer + 1] - states[:, layer]).astype(np.float64)


def lengths(difference: Array, mu: Array, sigma: Array) -> Array:
    """S of one layer, float64 [n]."""
    standard = difference - mu
    standard /= sigma
    length: Array = np.sqrt(np.einsum("nd,nd->n", standard, standard))
    return length


def aggregate(s: Array) -> Aggregate:
    """Mean, population deviation and Ledoit-Wolf precision of lengths S, float64 [n, L]."""
    mean = s.mean(axis=0)
    scale = np.maximum(s.std(axis=0), ABSOLUTE_FLOOR)
    z = (s - mean) / scale
    return Aggregate(mean, scale, z.mean(axis=0), precision(z))


def precision(z: Array) -> Array:
    """Inverse of the Ledoit-Wolf covariance of Z, float64 [L, L]."""
    inverse: Array = LedoitWolf().fit(z).precision_
    return inverse


def mahalanobis(z: Array, centre: Array, inverse: Array) -> Array:
    """sqrt((z - centre)' P (z - centre)) of each row, float64 [n]."""
    away = z - centre
    length: Array = np.sqrt(np.einsum("nl,lm,nm->n", away, inverse, away))
    return length
