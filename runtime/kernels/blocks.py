"""Flags and p-values of scores, computed by the functions that the C guard uses."""

from collections.abc import Sequence

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.kernels.call import check, pointer
from layerguard.runtime.types import Array

_READING = ffi.typeof("lg_reading *")


def judged(score: float, threshold: float, clean_scores: Array) -> tuple[bool, bool, float]:
    """Whether a score is finite, whether it is flagged, and its conformal p-value.

    Flags unless ``score <= threshold``, so that NaN flags. The p-value is
    (1 + #{clean >= score}) / (n + 1) (Vovk et al., "Algorithmic Learning in a Random World",
    section 2.2), and 1 / (n + 1), the smallest possible, for a score that is not finite.

    Args:
        score: unitless, larger is worse.
        threshold: of the detector.
        clean_scores: float64 [n], contiguous, ascending: scores of clean calibration texts.
    """
    reading = ffi.new(_READING, {"score": score})
    clean = pointer("double[]", clean_scores)
    check(lib.lg_judge(threshold, clean, clean_scores.size, reading), "a score")
    return reading.status == lib.LG_READ, reading.flagged != 0, reading.p_value


class BlockSet:
    """The cuts of n clean texts; see ``layerguard.runtime.decision.blocks``."""

    def __init__(self, scores: Array, *, every: bool) -> None:
        """Cut off all texts.

        Args:
            scores: float64 [n, detectors], finite, larger is worse.
            every: whether all detectors must flag a text; else one is enough.
        """
        plain = np.ascontiguousarray(scores, np.float64)
        self._count, self._columns = plain.shape
        block_set = ffi.new("lg_block_set **")
        policy = lib.LG_ALL if every else lib.LG_ANY
        values = pointer("double[]", plain)
        check(lib.lg_block_set_open(values, *plain.shape, policy, block_set), "clean scores")
        self._set = ffi.gc(block_set[0], lib.lg_block_set_close)

    def columns(self) -> list[tuple[list[float], list[int]]]:
        """For each detector the keys of its cuts, ascending, and the cut numbers, from 1."""
        keys, numbers = ffi.new("double const **"), ffi.new("size_t const **")
        count = ffi.new("size_t *")
        cuts = []
        for column in range(self._columns):
            check(lib.lg_block_set_cuts(self._set, column, keys, numbers, count), "blocks")
            cuts.append((list(keys[0][0 : count[0]]), list(map(int, numbers[0][0 : count[0]]))))
        return cuts

    def p_value(self, scores: Sequence[float]) -> float:
        """The p-value of a text with these scores: the least target at which it is flagged."""
        result = ffi.new("double *")
        values = ffi.new("double[]", list(scores))
        check(lib.lg_block_set_p_value(self._set, values, result), "blocks")
        return float(result[0])
