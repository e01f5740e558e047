"""Keys and values of the tokens a decoder has read, in buffers with room for more."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.runtime.types import Array

Layout = Mapping[str, tuple[int, int, np.dtype[Any]]]
"""By input of the decode graph: heads, elements of a head, and dtype."""

_LEAST_ROOM = 64
_ROOM = 8
"""Buffers grow by one eighth: all copies together move each token eight times at most, and a graph
that reads whole buffers reads little that is empty."""


class KeyValueCache:
    """The cache of one sequence: appending costs the new tokens, cutting costs those cut.

    Not thread-safe: it belongs to one sequence.

    Attributes:
        length: tokens it holds; they lie in the first places of each buffer.
    """

    def __init__(self, layout: Layout) -> None:
        self.length = 0
        self._layout = dict(layout)
        self._buffers = self._allocated(0)

    @property
    def capacity(self) -> int:
        """Places of the buffers, used or not."""
        first = next(iter(self._buffers.values()))
        return int(first.shape[2])

    @property
    def nbytes(self) -> int:
        """Memory of the buffers in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    @property
    def feeds(self) -> Mapping[str, Array]:
        """By input of the graph: the whole buffer, [1, heads, capacity, elements]."""
        return self._buffers

    def mask(self, new: int) -> Array:
        """Which places count, with ``new`` tokens behind them: int64 [1, capacity + new]."""
        capacity = self.capacity
        mask = np.zeros((1, capacity + new), np.int64)
        mask[0, : self.length] = 1
        mask[0, capacity:] = 1
        return mask

    def append(self, parts: Sequence[Array]) -> None:
        """Add the keys and values of new tokens.

        Args:
            parts: in the layout's order, [1, heads, new, elements] each.
        """
        end = self.length + parts[0].shape[2]
        if end > self.capacity:
            self._resize(end + max(end // _ROOM, _LEAST_ROOM))
        for buffer, part in zip(self._buffers.values(), parts, strict=True):
            buffer[:, :, self.length : end] = part
        self.length = end

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``.

        Their places are zeroed: a masked place may hold anything finite, and nothing else.
        """
        for buffer in self._buffers.values():
            buffer[:, :, length : self.length] = 0
        self.length = min(length, self.length)

    def fork(self) -> "KeyValueCache":
        """A copy to be continued apart from this one."""
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
