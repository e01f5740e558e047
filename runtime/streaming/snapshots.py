"""Sparse snapshots that make rollback cheap."""

from copy import copy
from typing import Generic, TypeVar

T = TypeVar("T")


class Snapshots(Generic[T]):
    """Values at some positions of a sequence; the density of positions falls with their age.

    If a snapshot was added at every position, a rollback by d positions starts from a snapshot at
    most d positions before the target. The number of positions that are read again is therefore
    never larger than the number removed. About 2 log2(n) of n positions are kept.
    """

    def __init__(self, first: T, position: int = 0) -> None:
        self._kept: list[tuple[int, T]] = [(position, first)]

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, position: int, value: T) -> None:
        """Add a snapshot at ``position``, not before the last one, and thin out older ones."""
        if position == self._kept[-1][0]:
            self._kept[-1] = (position, value)
            return
        self._kept.append((position, value))
        for i in range(len(self._kept) - 2, 0, -1):
            after = self._kept[i + 1][0]
            if after - self._kept[i - 1][0] <= position - after:
                del self._kept[i]

    def back_to(self, position: int) -> tuple[int, T]:
        """The last snapshot at or before ``position``; later snapshots are removed."""
        while self._kept[-1][0] > position:
            self._kept.pop()
        return self._kept[-1]

    def copy(self) -> "Snapshots[T]":
        """An independent copy; the values are shared."""
        other = copy(self)
        other._kept = list(self._kept)
        return other
