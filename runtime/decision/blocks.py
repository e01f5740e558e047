"""Thresholds for several scores at once that keep one promise: statistically equivalent blocks.

Clean texts are cut off one at a time. Each cut takes one detector, the one that was cut least
deep so far, and moves its threshold to the most extreme of the texts that are left. Whichever
detectors take the cuts, and however they depend on each other, every cut removes one of n + 1
blocks that a fresh text exchangeable with the clean ones falls into with equal chance. So after a
cuts the flagged region holds a share of fresh texts that is Beta(a, n + 1 - a), a / (n + 1) in the
mean: the very law of one detector's split-conformal threshold, and exact for continuous scores.
Ties only make the share smaller.

Tukey, "Non-parametric estimation II: statistically equivalent blocks and tolerance regions", 1947;
that the next cut may depend on those before it is in Fraser, "Sequentially determined
statistically equivalent blocks", 1951, and Kemperman, "Generalized tolerance limits", 1956.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from layerguard.runtime.types import Array, Combination


class Blocks:
    """The cuts of n clean texts, and where a fresh one falls among them.

    ``any`` cuts off the largest scores first: what is cut off is flagged. ``all`` cuts off the
    smallest first: what is cut off is not flagged, and all scores of what is left are large.

    Attributes:
        n: clean texts.
        any: whether it is ``any``.
    """

    def __init__(self, scores: Array, combination: Combination) -> None:
        """Cut all texts off.

        Args:
            scores: float64 [n, detectors], finite, larger is worse.
            combination: ``any`` or ``all``.
        """
        self.n = len(scores)
        self.any = combination == "any"
        self._keys, self._numbers = _cut(-scores if self.any else scores)

    @property
    def columns(self) -> list[tuple[list[float], list[int]]]:
        """Of each detector the keys at which it was cut, ascending, and which cut each was, from 1.

        Keys are scores; of ``any`` they are minus scores.
        """
        return list(zip(self._keys, self._numbers, strict=True))

    def thresholds(self, flagged: int) -> list[float | None]:
        """The threshold of each detector that flags ``flagged`` of the n + 1 blocks.

        A text is flagged where any, or all, of its scores are above. None for a detector that
        has had no cut yet.
        """
        cuts = flagged if self.any else self.n + 1 - flagged
        found: list[float | None] = []
        for keys, numbers in zip(self._keys, self._numbers, strict=True):
            count = bisect_right(numbers, cuts)
            key = keys[count - 1] if count else None
            found.append(-key if key is not None and self.any else key)
        return found

    def p_value(self, scores: Sequence[float]) -> float:
        """Conformal, in (0, 1]: the least share of clean texts at which this one is flagged."""
        last = self.n + 1
        cuts = last
        for score, keys, numbers in zip(scores, self._keys, self._numbers, strict=True):
            place = bisect_right(keys, -score) if self.any else bisect_left(keys, score)
            if place < len(numbers):
                cuts = min(cuts, numbers[place])
        return (cuts if self.any else last + 1 - cuts) / last


def allowed(n: int, target_fpr: float) -> int:
    """How many of the n + 1 blocks may be flagged: the largest whole number within the target.

    The target counts as the decimal that was written: 0.29 of 100 is 29, not 28.999...
    """
    return math.floor(Fraction(str(target_fpr)) * (n + 1))


def _cut(keys: Array) -> tuple[list[list[float]], list[list[int]]]:
    """By column: the keys at which it was cut, ascending, and which cut, from 1, each was.

    What is chosen depends on the texts already cut off alone: depth counts how many of a column's
    smallest keys are theirs.
    """
    n, columns = keys.shape
    orders = np.argsort(keys, axis=0, kind="stable").T.tolist()
    values = keys.T.tolist()
    gone = [False] * n
    depth = [0] * columns
    cut_at: list[list[float]] = [[] for _ in range(columns)]
    numbers: list[list[int]] = [[] for _ in range(columns)]
    for number in range(1, n + 1):
        column = depth.index(min(depth))
        place, order = depth[column], orders[column]
        while gone[order[place]]:
            place += 1
        gone[order[place]] = True
        depth[column] = place + 1
        cut_at[column].append(values[column][order[place]])
        numbers[column].append(number)
    return cut_at, numbers
