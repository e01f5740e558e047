"""Bounds of the cosines of clean text, by this project's rule and by the published rule.

The extremes of all rows are ``rows x 4 x 2 x K`` floats, 0.8 GB for 20,000 rows and 1,280
directions. They are read as ``States`` of eight layers: the least and the greatest cosines of each
role. A median needs all rows, so this project's rule reads one role at a time. The published rule
merges blocks. Each rule computes the bounds of all rows, and the bounds without each fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.states.blockwise import States
from layerguard.calibration.weightwatch.ranges import Ranges
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.kernels import RangesKernel
from layerguard.runtime.types import ROLES, Array

LEAST_ROWS = 10
"""Fewest rows with tokens of a role for bounds of its own."""

_LEAST_SPREAD = 1e-6
"""Keeps the scale of a constant cosine above zero; far below the rounding error of a cosine."""
_COLUMNS = 256
"""Directions that are copied at once."""

_USER = ROLES.index("user")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of normal cosines, by role and direction.

    Attributes:
        low: float32 [4, K], lower bound of the least cosine.
        high: float32 [4, K], upper bound of the greatest cosine.
        scale: float32 [4, K], the unit of the score.
        roles_seen: bool [4], roles with bounds of their own; the others have the user's bounds.
    """

    low: Array
    high: Array
    scale: Array
    roles_seen: Array

    def params(self) -> dict[str, Array]:
        """The bounds as arrays of the bundle."""
        return {
            "low": self.low,
            "high": self.high,
            "scale": self.scale,
            "roles_seen": self.roles_seen,
        }

    def scores(self, extremes: Array) -> Array:
        """The score of each row, its largest excess over the bounds, float64 [n]."""
        scores: Array = RangesKernel(self.low, self.high, self.scale).score(extremes)[0]
        return scores


@dataclass(frozen=True, slots=True)
class Standard:
    """This project's rule: medians, and scales by spread and singular value; see ``estimation``."""

    singular_values: Array

    def bounds(self, extremes: States, folds: Array) -> tuple[Bounds, list[Bounds]]:
        """The bounds of all rows, and the bounds without each fold.

        Args:
            extremes: extremes of all rows; layers 2 r and 2 r + 1 are the least and greatest
                cosines of role r.
            folds: int64 [n], 0..k-1.

        Raises:
            CalibrationError: too few rows have tokens of the user, or all rows are equal.
        """
        subsets = [np.ones(len(folds), dtype=bool)]
        subsets += [folds != fold for fold in range(int(folds.max()) + 1)]
        values = self.singular_values.astype(np.float64)
        weight = np.sqrt(values.max() / values)
        shape = (len(subsets), len(ROLES), len(weight))
        low, high, scale = np.empty(shape), np.empty(shape), np.empty(shape)
        seen = np.zeros(shape[:2], dtype=bool)
        for role, name in enumerate(ROLES):
            ends = extremes.layer(2 * role), extremes.layer(2 * role + 1)
            has_tokens = np.isfinite(ends[0][:, 0])
            for part, rows in enumerate(subsets):
                used = np.flatnonzero(rows & has_tokens)
                seen[part, role] = len(used) >= LEAST_ROWS
                if not seen[part, role]:
                    continue
                low[part, role], high[part, role], spread = _middle_and_spread(ends, used)
                if not spread.any():
                    raise CalibrationError(
                        f"found the same extremes in all {len(used)} rows with {name} tokens; "
                        "expected texts that differ"
                    )
                typical = np.maximum(spread + np.median(spread), _LEAST_SPREAD)
                scale[part, role] = weight * typical
        if not seen[:, _USER].all():
            raise CalibrationError(
                f"found fewer than {LEAST_ROWS} rows with a user's tokens; expected clean prompts"
            )
        whole, *without = [
            _with_users(*arrays) for arrays in zip(low, high, scale, seen, strict=True)
        ]
        return whole, without


@dataclass(frozen=True, slots=True)
class Reference:
    """The published rule: the most extreme values seen, or percentiles of them."""

    trim: float

    def bounds(self, extremes: States, folds: Array) -> tuple[Bounds, list[Bounds]]:
        """The bounds of all rows, and the bounds without each fold; see ``Standard`` and ``of``."""
        parts: dict[int, Ranges] = {}
        for rows, block in extremes.blocks():
            by_row = as_extremes(block)
            for fold in np.unique(folds[rows]).tolist():
                ranges = Ranges.of(by_row[folds[rows] == fold])
                parts[fold] = parts[fold].merged(ranges) if fold in parts else ranges
        without = [
            _merged([ranges for fold, ranges in parts.items() if fold != left_out])
            for left_out in range(len(parts))
        ]
        return self.of(_merged(list(parts.values()))), [self.of(ranges) for ranges in without]

    def of(self, ranges: Ranges) -> Bounds:
        """The bounds of trimmed ranges.

        Raises:
            CalibrationError: no row has tokens of the user.
            InputError: ``trim`` is out of range or needs more values than are kept.
        """
        low, high = ranges.trimmed(self.trim)
        if not ranges.items[_USER]:
            raise CalibrationError("found no row with a user's tokens; expected clean prompts")
        return _with_users(low, high, np.ones_like(low), ranges.items > 0)


def _with_users(low: Array, high: Array, scale: Array, seen: Array) -> Bounds:
    """The bounds, with the user's bounds for each role without bounds of its own."""
    source = np.where(seen, np.arange(len(ROLES)), _USER)
    single = [array[source].astype(np.float32) for array in (low, high, scale)]
    return Bounds(single[0], single[1], single[2], seen)


def _middle_and_spread(ends: tuple[Array, Array], rows: Array) -> tuple[Array, Array, Array]:
    """Medians of the least and greatest cosines, and the larger deviation, [K] each."""
    width = ends[0].shape[1]
    middle, spread = np.empty((2, width)), np.empty((2, width))
    for start in range(0, width, _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        for side, end in enumerate(ends):
            some = end[rows, columns]
            middle[side, columns] = np.median(some, axis=0)
            spread[side, columns] = some.std(axis=0, dtype=np.float64)
    return middle[0], middle[1], spread.max(axis=0)


def _merged(parts: Sequence[Ranges]) -> Ranges:
    together = parts[0]
    for part in parts[1:]:
        together = together.merged(part)
    return together


def as_extremes(block: Array) -> Array:
    """A block [8, rows, K] of ``States`` as extremes by row, float32 [rows, 4, 2, K]."""
    by_row = np.ascontiguousarray(block.swapaxes(0, 1))
    extremes: Array = by_row.reshape(len(by_row), len(ROLES), 2, -1)
    return extremes
