"""The mean over the tokens of a text that is still being written; see the package for states."""

from typing import Any

import numpy as np

from layerguard.runtime._kernels import lib
from layerguard.runtime.kernels.call import Layers, Singles, check, counted, in_place, width_error


class RunningMean:
    """Sums of token states in double: the same bits however the tokens come in pieces.

    Not thread-safe: it belongs to one text.

    Attributes:
        count: tokens added so far.
    """

    def __init__(self, layer_count: int, width: int) -> None:
        self.count = 0
        self._sums = np.zeros((layer_count, width))
        self._mean = np.full((layer_count, width), np.nan, np.float32)

    @property
    def mean(self) -> Singles:
        """float32 (layers, width), not to be written to; NaN before the first token."""
        return self._mean

    def add(self, layers: Layers) -> None:
        """Add tokens.

        Args:
            layers: states of the tokens that follow, each (tokens, width); see the module.

        Raises:
            InputError: the states' number, shape, dtype or layout is not as at first.
        """
        in_place(self._attempt, counted(layers, len(self._sums)))

    def copy(self) -> "RunningMean":
        """The same sums, to be continued apart from these."""
        other = object.__new__(RunningMean)
        other.count, other._sums, other._mean = self.count, self._sums.copy(), self._mean
        return other

    def _attempt(self, arrays: tuple[Any, ...]) -> bool | None:
        """True once added, or None if the arrays are not what the C core reads in place."""
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
