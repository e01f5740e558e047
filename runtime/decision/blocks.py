"""Joint thresholds for several scores at one false-positive rate: equivalent blocks.

Clean texts are cut off one at a time. Each cut uses the detector with the fewest cuts so far and
moves its threshold to the most extreme of the remaining texts. For any choice of detectors, and any
dependence between them, every cut removes one of n + 1 blocks. A new text that is exchangeable with
the clean ones falls into each block with the same probability. After a cuts the flagged region
therefore holds a share of new texts that is distributed as Beta(a, n + 1 - a), with mean
a / (n + 1), as for the split-conformal threshold of one detector. This is exact for continuous
scores; ties make the share smaller.

Tukey, "Non-parametric estimation II: statistically equivalent blocks and tolerance regions", 1947;
for cuts that depend on the earlier ones: Fraser, "Sequentially determined statistically equivalent
blocks", 1951, and Kemperman, "Generalized tolerance limits", 1956.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

from layerguard.runtime.kernels import BlockSet
from layerguard.runtime.types import Array, Combination


class Blocks:
    """The cuts of n clean texts, and the p-values of new texts.

    ``any`` cuts off the largest scores first; texts that are cut off are flagged. ``all`` cuts off
    the smallest first; texts that are cut off are not flagged, all scores of the rest are large.

    Attributes:
        n: number of clean texts.
        any: whether the combination is ``any``.
    """

    def __init__(self, scores: Array, combination: Combination) -> None:
        """Cut off all texts.

        Args:
            scores: float64 [n, detectors], finite, larger is worse.
            combination: ``any`` or ``all``.
        """
        self.n = len(scores)
        self.any = combination == "any"
        self._set = BlockSet(scores, every=not self.any)

    @property
    def columns(self) -> list[tuple[list[float], list[int]]]:
        """For each detector the keys of its cuts, ascending, and the numbers of the cuts, from 1.

        A key is the score for ``all``, minus the score for ``any``.
        """
        return self._set.columns()

    def thresholds(self, flagged: int) -> list[float | None]:
        """The thresholds of the detectors that flag ``flagged`` of the n + 1 blocks.

        A text is flagged if any, or all, of its scores are above their thresholds. None for a
        detector without a cut.
        """
        cuts = flagged if self.any else self.n + 1 - flagged
        thresholds: list[float | None] = []
        for keys, numbers in self.columns:
            count = bisect_right(numbers, cuts)
            key = keys[count - 1] if count else None
            thresholds.append(-key if key is not None and self.any else key)
        return thresholds

    def p_value(self, scores: Sequence[float]) -> float:
        """The conformal p-value, in (0, 1]: the least target at which the text is flagged.

        It is 1 / (n + 1), the smallest possible value, if a score is not finite.
        """
        return self._set.p_value(scores)


def allowed(n: int, target_fpr: float) -> int:
    """Number of the n + 1 blocks that may be flagged: the largest integer within the target.

    The target is taken as a decimal number: 0.29 of 100 is 29, not 28.999...
    """
    return math.floor(Fraction(str(target_fpr)) * (n + 1))
