"""Folds that keep groups together: windows of one text, paraphrases, answers to one prompt."""

from collections.abc import Sequence

import numpy as np

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

Groups = Sequence[object] | Array | None
"""One hashable label for each row, equal for rows of one group; None: every row is a group."""

LEAST_SOURCES = 3
"""Fewest sources that are held out in turn: the rest then still has two."""


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


def one_fold_per_source(codes: Array, sources: Groups, least_groups: int) -> Array:
    """One fold for each source, int64 [n], 0..count-1; a group follows the source of its first row.

    Args:
        codes: int64 [n] from ``group_codes``.
        sources: n labels; rows with equal labels come from one source.
        least_groups: fewest groups outside each source.

    Raises:
        CalibrationError: fewer than 3 sources, or too few groups outside one of them.
        InputError: the number of labels is not n.
    """
    labels = group_codes([None] * len(codes) if sources is None else sources, len(codes))
    of_group = labels[np.unique(codes, return_index=True)[1]]
    present, folds = np.unique(of_group, return_inverse=True)
    if len(present) < LEAST_SOURCES:
        raise CalibrationError(
            f"found rows of {len(present)} source(s); expected at least {LEAST_SOURCES}, because "
            "each is held out in turn. Give the rows a source, or use cross-fit"
        )
    outside = len(of_group) - int(np.bincount(folds).max())
    if outside < least_groups:
        raise CalibrationError(
            f"found {outside} prompts outside the largest source; expected at least {least_groups}"
        )
    by_row: Array = folds[codes]
    return by_row


def group_maxima(scores: Array, codes: Array) -> Array:
    """The largest score of each group in ``codes``, float64, ascending."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    maxima: Array = np.sort(np.maximum.reduceat(scores[order], starts))
    return maxima
