"""The key-value cache of one sequence, in buffers with spare capacity."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.runtime.types import Array

Layout = Mapping[str, tuple[int, int, np.dtype[Any]]]
"""For each cache input of the decode graph: number of heads, elements per head, and dtype."""

_MIN_SPARE_TOKENS = 64
_SPARE_DIVISOR = 8
"""Buffers grow by one eighth. All copies together then move each token at most eight times. The
graph reads whole buffers, so the spare capacity must stay small."""


class KeyValueCache:
    """The cache of one sequence. The cost of a change is proportional to the tokens that change.

    Not thread-safe: it belongs to one sequence.

    Attributes:
        length: number of tokens in the cache; they fill the first positions of each buffer.
    """

    def __init__(self, layout: Layout) -> None:
        self.length = 0
        self._layout = dict(layout)
        self._buffers = self._allocated(0)

    @property
    def capacity(self) -> int:
        """Number of positions in each buffer, used or not."""
        first = next(iter(self._buffers.values()))
        return int(first.shape[2])

    @property
    def nbytes(self) -> int:
        """Size of the buffers in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    @property
    def feeds(self) -> Mapping[str, Array]:
        """The buffers by input of the graph, each [1, heads, capacity, elements]."""
        return self._buffers

    def mask(self, new: int) -> Array:
        """Attention mask of the buffer followed by ``new`` tokens: int64 [1, capacity + new]."""
        capacity = self.capacity
        mask = np.zeros((1, capacity + new), np.int64)
        mask[0, : self.length] = 1
        mask[0, capacity:] = 1
        return mask

    def append(self, parts: Sequence[Array]) -> None:
        """Add the keys and values of new tokens.

        Args:
            parts: one array per input, in the layout's order, each [1, heads, new, elements].
        """
        end = self.length + parts[0].shape[2]
        if end > self.capacity:
            self._resize(end + max(end // _SPARE_DIVISOR, _MIN_SPARE_TOKENS))
        for buffer, part in zip(self._buffers.values(), parts, strict=True):
            buffer[:, :, self.length : end] = part
        self.length = end

    def truncate(self, length: int) -> None:
        """Remove all tokens after the first ``length``.

        Their positions are set to zero, because a masked position must hold a finite value.
        """
        for buffer in self._buffers.values():
            buffer[:, :, length : self.length] = 0
        self.length = min(length, self.length)

    def fork(self) -> "KeyValueCache":
        """An independent copy."""
        other = KeyValueCache(self._layout)
        other.length = self.length
        other._buffers = {name: buffer.copy() for name, buffer in self._buffers.items()}
        return other

    def _resize(self, capacity: int) -> None:
        old, self._buffers = self._buffers, self._allocated(capacity)
        for buffer, before in zip(self._buffers.values(), old.values(), strict=True):
            buffer[:, :, : self.length] = before[:, :, : self.length]

    def _allocated(self, capacity: int) -> dict[str, Array]:
        return {
            name: np.zeros((1, heads, capacity, elements), dtype)
            for name, (heads, elements, dtype) in self._layout.items()
        }
