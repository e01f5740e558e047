"""Folds that keep groups together: windows of one text, paraphrases, answers to one prompt."""

from collections.abc import Sequence

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

Groups = Sequence[object] | Array | None
"""One hashable label for each row, equal for rows of one group; None: every row is a group."""


def group_codes(groups: Groups, n: int) -> Array:
    """Groups as integers 0..g-1 in order of first appearance, int64 [n].

    Raises:
        InputError: the number of labels is not n.
    """
    if groups is None:
        return np.arange(n)
    labels = groups.tolist() if isinstance(groups, np.ndarray) else groups
    if len(labels) != n:
        raise InputError(f"groups: found {len(labels)}, expected {n}, one for each row of states")
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], dtype=np.int64)


def random_folds(codes: Array, count: int, seed: int) -> Array:
    """The fold of each row, int64 [n], 0..count-1; fold sizes differ by one group at most.

    Args:
        codes: int64 [n] from ``group_codes``.
        count: number of folds, at most the number of groups.
        seed: random seed of the assignment.
    """
    groups = int(codes.max()) + 1
    fold_of_group = np.random.default_rng(seed).permutation(groups) % count
    folds: Array = fold_of_group[codes]
    return folds


def group_maxima(scores: Array, codes: Array) -> Array:
    """The largest score of each group in ``codes``, float64, ascending."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    maxima: Array = np.sort(np.maximum.reduceat(scores[order], starts))
    return maxima
