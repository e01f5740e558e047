"""Running mean over the tokens of a text; the package documents the format of states."""

from typing import Any

import numpy as np

from layerguard.runtime._kernels import lib
from layerguard.runtime.kernels.call import Layers, Singles, check, counted, in_place, width_error


class RunningMean:
    """Sums of token states in double precision; the bits do not depend on how tokens are split.

    Not thread-safe; it belongs to one text.

    Attributes:
        count: tokens added so far.
    """

    def __init__(self, layer_count: int, width: int) -> None:
        self.count = 0
        self._sums = np.zeros((layer_count, width))
        self._mean = np.full((layer_count, width), np.nan, np.float32)

    @property
    def mean(self) -> Singles:
        """float32 (layers, width), read-only; NaN before the first token."""
        return self._mean

    def add(self, layers: Layers) -> None:
        """Add tokens.

        Args:
            layers: states of the next tokens, each (tokens, width); see the package.

        Raises:
            InputError: the states' number, width, dtype or layout is wrong.
        """
        in_place(self._attempt, counted(layers, len(self._sums)))

    def copy(self) -> "RunningMean":
        """An independent copy."""
        other = object.__new__(RunningMean)
        other.count, other._sums, other._mean = self.count, self._sums.copy(), self._mean
        return other

    def _attempt(self, arrays: tuple[Any, ...]) -> bool | None:
        """True if the tokens were added, None if the C core cannot read the arrays in place."""
        shape: tuple[int, ...] = getattr(arrays[0], "shape", ())
        if len(shape) != 2:
            return None
        if shape[1] != self._sums.shape[1]:
            raise width_error(arrays, str(self._sums.shape[1]))
        if not shape[0]:
            return True
        mean = np.empty_like(self._mean)
        count = self.count + shape[0]
        status = lib.lg_sums_arrays(id(arrays), id(self._sums), count, id(mean))
        if status == lib.LG_NOT_PLAIN:
            return None
        check(status, "running mean")
        self.count, self._mean = count, mean
        return True
