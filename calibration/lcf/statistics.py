"""The statistics of Layerwise Convergence Fingerprints, arXiv 2604.24542, section "Method".

A row is one prompt. D[i, l] = h_{l+1} - h_l at its last token; S[i, l] is the length of D[i, l]
after standardising every dimension; Z is S standardised; the score is the Mahalanobis length of Z.

D is never in memory for all rows. A first pass over the states computes its mean and deviation by
layer and dimension; a second pass computes the lengths, which are small.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.covariance import LedoitWolf

from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.moments import Moments
from layerguard.runtime.types import Array

ABSOLUTE_FLOOR = 1e-8
"""Least standard deviation, as published."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Combines lengths into a score: z = (S - mean) / scale, sqrt((z - centre)' P (z - centre)).

    All arrays are float64: ``mean``, ``scale``, ``centre`` [L]; ``precision`` [L, L].
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


class Standard(Protocol):
    """One or several means and deviations with which to standardise D."""

    @property
    def ways(self) -> int:
        """The number of standardisations."""

    def lengths(self, layer: int, difference: Array) -> Array:
        """S of one layer, float64 [rows, ways], of D, float64 [rows, hidden]."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The published parameters as the bundle stores them: float32 [L, hidden]."""

    mu: Array
    sigma: Array
    ways: int = 1

    def lengths(self, layer: int, difference: Array) -> Array:
        """See ``Standard``."""
        standard = difference - self.mu[layer]
        standard /= self.sigma[layer]
        length: Array = np.sqrt(np.einsum("nd,nd->n", standard, standard))
        return length[:, None]


def differences(states: States) -> Iterator[tuple[slice, int, Array]]:
    """Yield D in parts: rows, layer, float64 [rows, hidden]; subtracted in float32, as published.

    The caller may change every part.
    """
    for rows, block in states.blocks():
        for layer in range(len(block) - 1):
            yield rows, layer, (block[layer + 1] - block[layer]).astype(np.float64)


def moments(states: States, groups: Array, count: int) -> tuple[Moments, ...]:
    """The moments [count, hidden] of D by group of rows, for each layer, in one pass.

    Args:
        states: states of all rows.
        groups: int64 [n], 0..count-1; rows with another number belong to no group.
        count: number of groups.
    """
    by_layer = [Moments.none(count, states.shape[2]) for _ in range(states.shape[1] - 1)]
    for rows, layer, difference in differences(states):
        by_layer[layer] = by_layer[layer].merged(Moments.of_groups(difference, groups[rows], count))
    return tuple(by_layer)


def lengths(states: States, standards: Sequence[Standard]) -> list[Array]:
    """S of all rows under each standard, float64 [n, ways, L] each, in one pass."""
    n, depth = states.shape[0], states.shape[1] - 1
    by_standard = [np.empty((n, standard.ways, depth)) for standard in standards]
    for rows, layer, difference in differences(states):
        for standard, s in zip(standards, by_standard, strict=True):
            s[rows, :, layer] = standard.lengths(layer, difference)
    return by_standard


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
