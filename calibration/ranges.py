"""Ranges of cosines as they were published: what normal conversations reach, item by item.

Ranges of shards merge, so that tens of thousands of conversations can be read on many machines.
Of every direction the lowest and highest few values are kept, which is all that trimming by a
percentile needs: merged ranges are exactly those of all items read at once, at a size that does not
grow with them. Ranges mean nothing with other directions, so they carry a hash of theirs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.bundle.npz import read_npz, write_npz
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import ROLES, Array

KEPT = 100
"""Values kept at each end of a direction; p of n items can be trimmed while p n stays below it."""

_NAME = "ranges"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ends of what was seen.

    Attributes:
        directions_sha256: of the directions that the cosines are to, in hex.
        lowest: float32 [4, kept, K], by role: the least of the items' minima, ascending, +inf where
            fewer were seen.
        highest: the greatest of their maxima, descending, -inf where fewer were seen.
        items: int64 [4], items that had tokens of the role.
    """

    directions_sha256: str
    lowest: Array
    highest: Array
    items: Array

    @classmethod
    def of(cls, extremes: Array, directions_sha256: str) -> "Ranges":
        """The ranges of some items.

        Args:
            extremes: float32 [n, 4, 2, K], minimum and maximum by role; +inf and -inf for a role
                without tokens.
            directions_sha256: of the directions.

        Raises:
            CalibrationError: a value is NaN.
        """
        refuse_nan(extremes)
        lowest = np.sort(extremes[:, :, 0], axis=0)[:KEPT].swapaxes(0, 1)
        highest = -np.sort(-extremes[:, :, 1], axis=0)[:KEPT].swapaxes(0, 1)
        items = np.isfinite(extremes[:, :, 0, 0]).sum(axis=0).astype(np.int64)
        return cls(directions_sha256, lowest, highest, items)

    def merged(self, other: "Ranges") -> "Ranges":
        """The ranges of the items of both.

        Raises:
            InputError: they are of other directions.
        """
        if other.directions_sha256 != self.directions_sha256:
            raise InputError(
                f"ranges of directions {other.directions_sha256[:16]}; expected "
                f"{self.directions_sha256[:16]}. Ranges hold for one set of directions: read the "
                "rows again with these"
            )
        lowest = np.sort(np.concatenate([self.lowest, other.lowest], axis=1), axis=1)
        highest = -np.sort(-np.concatenate([self.highest, other.highest], axis=1), axis=1)
        return Ranges(
            self.directions_sha256,
            lowest[:, :KEPT],
            highest[:, :KEPT],
            self.items + other.items,
        )

    def trimmed(self, share: float = 0.0) -> tuple[Array, Array]:
        """Lower and upper bounds, float32 [4, K]; of a role without items +inf and -inf.

        Args:
            share: of the items that may lie below the lower, and above the upper bound: the bounds
                are the percentiles 100 share and 100 (1 - share), interpolated linearly.

        Raises:
            InputError: the share is not within 0 and 0.5, or needs more values than are kept.
        """
        if not 0 <= share < 0.5:
            raise InputError(f"trim: found {share}; expected a share from 0 to below 0.5")
        bounds = [
            [_quantile(ends[role], int(n), share) for role, n in enumerate(self.items)]
            for ends in (self.lowest, self.highest)
        ]
        return np.array(bounds[0], np.float32), np.array(bounds[1], np.float32)

    def save(self, path: Path) -> None:
        """Write them as an npz file."""
        digest = np.frombuffer(bytes.fromhex(self.directions_sha256), np.uint8)
        arrays = {
            "directions_sha256": digest,
            "lowest": self.lowest,
            "highest": self.highest,
            "items": self.items,
        }
        write_npz(path, {f"{_NAME}/{name}": array for name, array in arrays.items()})

    @classmethod
    def load(cls, path: Path) -> "Ranges":
        """Ranges that ``save`` wrote.

        Raises:
            InputError: the file is missing or holds something else.
        """
        arrays, faults = read_npz(path)
        found = {name.removeprefix(f"{_NAME}/"): array for name, array in arrays.items()}
        try:
            digest, items = found["directions_sha256"], found["items"]
            lowest, highest = found["lowest"], found["highest"]
            sound = (
                digest.shape == (_DIGEST_BYTES,)
                and items.shape == (len(ROLES),)
                and lowest.shape == highest.shape
                and lowest.ndim == 3
                and len(lowest) == len(ROLES)
            )
        except KeyError as error:
            faults, sound = [*faults, f"no array {error}"], False
        if faults or not sound:
            reason = "; ".join(faults) or "arrays of other shapes"
            raise InputError(f"{path}: {reason}; expected ranges that Ranges.save wrote")
        return cls(digest.tobytes().hex(), lowest, highest, items)


def refuse_nan(extremes: Array) -> None:
    """Extremes that are no cosines are an error.

    Raises:
        CalibrationError: a value is NaN.
    """
    if np.isnan(extremes).any():
        raise CalibrationError(
            "extremes: found NaN; expected cosines. A state was zero or not finite: leave such "
            "rows out, or export the model in float32"
        )


def _quantile(ends: Array, items: int, share: float) -> Array:
    """Of ends [kept, K] in order from the outermost, the value that ``share`` of items exceed."""
    position = share * max(items - 1, 0)
    whole = int(position)
    rest = position - whole
    last = whole + (rest > 0)
    if last >= len(ends) and last < items:
        raise InputError(
            f"trim: found {share}, {whole} of {items} items at either end; at most {len(ends) - 1} "
            "are kept. Trim less"
        )
    value: Array = ends[whole].astype(np.float64)
    if rest > 0:
        value = value + rest * (ends[last].astype(np.float64) - value)
    return value
