"""What was, at a few positions of a growing sequence: enough to go back at a fair cost."""

from copy import copy
from typing import Generic, TypeVar

T = TypeVar("T")


class Snapshots(Generic[T]):
    """Values at positions that lie the sparser the further back they are.

    Going back by d positions lands at most d before the wanted one, wherever a snapshot was offered
    at each, so what is read again is never more than what was taken back. Of n positions about
    2 log2(n) are kept.
    """

    def __init__(self, first: T, position: int = 0) -> None:
        self._kept: list[tuple[int, T]] = [(position, first)]

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, position: int, value: T) -> None:
        """Keep ``value`` at ``position``, which is not before the last; thin out the others."""
        if position == self._kept[-1][0]:
            self._kept[-1] = (position, value)
            return
        self._kept.append((position, value))
        for i in range(len(self._kept) - 2, 0, -1):
            after = self._kept[i + 1][0]
            if after - self._kept[i - 1][0] <= position - after:
                del self._kept[i]

    def back_to(self, position: int) -> tuple[int, T]:
        """The last snapshot at or before ``position``; those behind it are forgotten."""
        while self._kept[-1][0] > position:
            self._kept.pop()
        return self._kept[-1]

    def copy(self) -> "Snapshots[T]":
        """The same values, to be added to apart from these."""
        other = copy(self)
        other._kept = list(self._kept)
        return other
