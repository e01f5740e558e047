"""Bounds of the cosines that clean text reaches, by our rule and by the published one.

Extremes of all rows are ``rows x 4 x 2 x K`` floats, 0.8 GB for 20,000 rows and 1,280 directions.
They are read as ``States`` of eight layers, the least and the greatest cosines of each role.
Medians need a column of all rows, so our rule reads one role at a time; the published one is a
merge of blocks. Each rule gives the bounds of all rows, and those without each of some folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.ranges import Ranges
from layerguard.calibration.states import States
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.kernels import RangesKernel
from layerguard.runtime.types import ROLES, Array

LEAST_ROWS = 10
"""With tokens of a role, for bounds of its own."""

_LEAST_SPREAD = 1e-6
"""Far below any cosine's rounding: keeps the scale of a constant cosine above zero."""
_COLUMNS = 256
"""Directions whose rows are copied at once."""

_USER = ROLES.index("user")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is normal, by role and direction.

    Attributes:
        low: float32 [4, K], beyond which a least cosine adds to the score.
        high: float32 [4, K], the same for a greatest.
        scale: float32 [4, K], in whose units the score is.
        roles_seen: bool [4]; the others hold the user's bounds.
    """

    low: Array
    high: Array
    scale: Array
    roles_seen: Array

    def params(self) -> dict[str, Array]:
        """As they are frozen."""
        return {
            "low": self.low,
            "high": self.high,
            "scale": self.scale,
            "roles_seen": self.roles_seen,
        }

    def scores(self, extremes: Array) -> Array:
        """How far beyond its bounds each row reaches, float64 [n], as it will be scored."""
        scores: Array = RangesKernel(self.low, self.high, self.scale).score(extremes)[0]
        return scores


@dataclass(frozen=True, slots=True)
class Standard:
    """Our rule: medians, and scales by spread and singular value; see ``weightwatch``."""

    singular_values: Array

    def bounds(self, extremes: States, folds: Array) -> tuple[Bounds, list[Bounds]]:
        """The bounds of all rows, and those without each fold.

        Args:
            extremes: of all rows, layers 2 r and 2 r + 1 the least and greatest cosines of role r.
            folds: int64 [n], 0..k-1.

        Raises:
            CalibrationError: too few rows have tokens of the user, or they are all equal.
        """
        kept = [np.ones(len(folds), dtype=bool)]
        kept += [folds != fold for fold in range(int(folds.max()) + 1)]
        values = self.singular_values.astype(np.float64)
        weight = np.sqrt(values.max() / values)
        shape = (len(kept), len(ROLES), len(weight))
        low, high, scale = np.empty(shape), np.empty(shape), np.empty(shape)
        seen = np.zeros(shape[:2], dtype=bool)
        for role, name in enumerate(ROLES):
            ends = extremes.layer(2 * role), extremes.layer(2 * role + 1)
            spoken = np.isfinite(ends[0][:, 0])
            for part, rows in enumerate(kept):
                mine = np.flatnonzero(rows & spoken)
                seen[part, role] = len(mine) >= LEAST_ROWS
                if not seen[part, role]:
                    continue
                low[part, role], high[part, role], spread = _middle_and_spread(ends, mine)
                if not spread.any():
                    raise CalibrationError(
                        f"found the same extremes in all {len(mine)} rows with {name} tokens; "
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

    directions_sha256: str
    trim: float

    def bounds(self, extremes: States, folds: Array) -> tuple[Bounds, list[Bounds]]:
        """The bounds of all rows, and those without each fold; see ``Standard`` and ``of``."""
        parts: dict[int, Ranges] = {}
        for rows, block in extremes.blocks():
            by_row = as_extremes(block)
            for fold in np.unique(folds[rows]).tolist():
                found = Ranges.of(by_row[folds[rows] == fold], self.directions_sha256)
                parts[fold] = parts[fold].merged(found) if fold in parts else found
        without = [
            _merged([ranges for fold, ranges in parts.items() if fold != left_out])
            for left_out in range(len(parts))
        ]
        return self.of(_merged(list(parts.values()))), [self.of(ranges) for ranges in without]

    def of(self, ranges: Ranges) -> Bounds:
        """The bounds that ranges give.

        Raises:
            CalibrationError: they hold no user's tokens.
            InputError: they cannot be trimmed so far.
        """
        low, high = ranges.trimmed(self.trim)
        if not ranges.items[_USER]:
            raise CalibrationError("found no row with a user's tokens; expected clean prompts")
        return _with_users(low, high, np.ones_like(low), ranges.items > 0)


def _with_users(low: Array, high: Array, scale: Array, seen: Array) -> Bounds:
    """The bounds, a role that was not seen given those of the user."""
    source = np.where(seen, np.arange(len(ROLES)), _USER)
    single = [array[source].astype(np.float32) for array in (low, high, scale)]
    return Bounds(single[0], single[1], single[2], seen)


def _middle_and_spread(ends: tuple[Array, Array], rows: Array) -> tuple[Array, Array, Array]:
    """Medians of the least and greatest cosines, and their larger deviation, [K] each."""
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
    found = parts[0]
    for part in parts[1:]:
        found = found.merged(part)
    return found


def as_extremes(block: Array) -> Array:
    """Extremes by row, float32 [rows, 4, 2, K], of a block [8, rows, K] of ``States``."""
    by_row = np.ascontiguousarray(block.swapaxes(0, 1))
    found: Array = by_row.reshape(len(by_row), len(ROLES), 2, -1)
    return found
