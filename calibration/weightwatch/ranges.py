"""Ranges of the cosines of normal conversations, for the published rule.

Ranges of parts can be merged, so tens of thousands of conversations are read one block at a time.
For each direction a fixed number of the lowest and highest values is kept, which trimming by a
percentile needs. Merged ranges equal those of all items read at once, and their size is constant.
"""

from dataclasses import dataclass

import numpy as np

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

KEPT = 100
"""Values kept at each end of a direction; a share p of n items can be trimmed if p n is below."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The most extreme cosines of some items.

    Attributes:
        lowest: float32 [4, kept, K], by role: the least of the items' minima, ascending; +inf if
            there are fewer items.
        highest: the same shape: the greatest of the maxima, descending; -inf if there are fewer.
        items: int64 [4], number of items with tokens of the role.
    """

    lowest: Array
    highest: Array
    items: Array

    @classmethod
    def of(cls, extremes: Array) -> "Ranges":
        """The ranges of some items.

        Args:
            extremes: float32 [n, 4, 2, K], minimum and maximum by role; +inf and -inf for a role
                without tokens.

        Raises:
            CalibrationError: a value is NaN.
        """
        refuse_nan(extremes)
        lowest = np.sort(extremes[:, :, 0], axis=0)[:KEPT].swapaxes(0, 1)
        highest = -np.sort(-extremes[:, :, 1], axis=0)[:KEPT].swapaxes(0, 1)
        items = np.isfinite(extremes[:, :, 0, 0]).sum(axis=0).astype(np.int64)
        return cls(lowest, highest, items)

    def merged(self, other: "Ranges") -> "Ranges":
        """The ranges of the items of both operands."""
        lowest = np.sort(np.concatenate([self.lowest, other.lowest], axis=1), axis=1)
        highest = -np.sort(-np.concatenate([self.highest, other.highest], axis=1), axis=1)
        return Ranges(lowest[:, :KEPT], highest[:, :KEPT], self.items + other.items)

    def trimmed(self, share: float = 0.0) -> tuple[Array, Array]:
        """Lower and upper bounds, float32 [4, K]; +inf and -inf for a role without items.

        Args:
            share: share of the items that may lie below the lower, and above the upper bound. The
                bounds are the percentiles 100 share and 100 (1 - share), linearly interpolated.

        Raises:
            InputError: the share is not in [0, 0.5), or needs more values than are kept.
        """
        if not 0 <= share < 0.5:
            raise InputError(f"trim: found {share}; expected a share from 0 to below 0.5")
        bounds = [
            [_quantile(ends[role], int(n), share) for role, n in enumerate(self.items)]
            for ends in (self.lowest, self.highest)
        ]
        return np.array(bounds[0], np.float32), np.array(bounds[1], np.float32)


def refuse_nan(extremes: Array) -> None:
    """Refuse extremes with NaN.

    Raises:
        CalibrationError: a value is NaN.
    """
    if np.isnan(extremes).any():
        raise CalibrationError(
            "extremes: found NaN; expected cosines. A state was zero or not finite: leave such "
            "rows out, or export the model in float32"
        )


def _quantile(ends: Array, items: int, share: float) -> Array:
    """The value that ``share`` of the items exceed, from ends [kept, K], the outermost first."""
    position = share * max(items - 1, 0)
    whole = int(position)
    rest = position - whole
    last = whole + (rest > 0)
    if last >= len(ends) and last < items:
        raise InputError(
            f"trim: found {share}, which is {whole} of {items} items at each end; expected at most "
            f"{len(ends) - 1}. Trim less"
        )
    value: Array = ends[whole].astype(np.float64)
    if rest > 0:
        value = value + rest * (ends[last].astype(np.float64) - value)
    return value
