"""Bounds of the cosines that clean text reaches, by our rule and by the published one."""

from dataclasses import dataclass

import numpy as np

from layerguard.calibration.ranges import Ranges
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.kernels import RangesKernel
from layerguard.runtime.types import ROLES, Array

LEAST_ROWS = 10
"""With tokens of a role, for bounds of its own."""

_LEAST_SPREAD = 1e-6
"""Far below any cosine's rounding: keeps the scale of a constant cosine above zero."""
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

    def bounds(self, extremes: Array) -> Bounds:
        """The bounds of some rows.

        Raises:
            CalibrationError: too few of them have tokens of the user, or they are all equal.
        """
        seen = _roles_seen(extremes)
        values = self.singular_values.astype(np.float64)
        weight = np.sqrt(values.max() / values)
        shape = (len(ROLES), len(weight))
        low, high, scale = np.empty(shape), np.empty(shape), np.empty(shape)
        for role in np.flatnonzero(seen):
            mine = extremes[np.isfinite(extremes[:, role, 0, 0]), role]
            low[role], high[role] = np.median(mine, axis=0)
            spread = mine.std(axis=0, dtype=np.float64).max(axis=0)
            if not spread.any():
                raise CalibrationError(
                    f"found the same extremes in all {len(mine)} rows with {ROLES[role]} tokens; "
                    "expected texts that differ"
                )
            scale[role] = weight * np.maximum(spread + np.median(spread), _LEAST_SPREAD)
        return _with_users(low, high, scale, seen)


@dataclass(frozen=True, slots=True)
class Reference:
    """The published rule: the most extreme values seen, or percentiles of them."""

    directions_sha256: str
    trim: float

    def bounds(self, extremes: Array) -> Bounds:
        """The bounds of some rows; see ``of``."""
        return self.of(Ranges.of(extremes, self.directions_sha256))

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


def _roles_seen(extremes: Array) -> Array:
    """Roles with rows enough for bounds of their own, bool [4]."""
    seen: Array = np.isfinite(extremes[:, :, 0, 0]).sum(axis=0) >= LEAST_ROWS
    if not seen[_USER]:
        raise CalibrationError(
            f"found fewer than {LEAST_ROWS} rows with a user's tokens; expected clean prompts"
        )
    return seen
