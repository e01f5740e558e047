"""Folds that hold out whole sources: how well does a classifier do on traffic of another kind?"""

from collections.abc import Sequence

import numpy as np

from layerguard.calibration.rows.stratified import LEAST_GROUPS, stratified_folds
from layerguard.runtime.types import Array


def source_folds(
    labels: Array, codes: Array, sources: Array | None, count: int
) -> list[tuple[Array, Array]] | None:
    """Pairs of (training rows, held-out rows) that share neither a source nor a group.

    Sources with harmful rows are dealt to the folds by their number, then the others: every fold
    holds out harmful rows. There are ``count`` folds, or one for each source with harmful rows if
    there are fewer.

    Args:
        labels: int [n], 1 is harmful.
        codes: int64 [n], group of each row; a training row whose group is also held out is left
            out of that fold.
        sources: int64 [n], source of each row, at least 0; None: all rows are of one source.
        count: most folds.

    Returns:
        The folds; None where the training rows of a fold would have fewer than ``LEAST_GROUPS``
        groups of a label, as with a single source.
    """
    if sources is None:
        return None
    harmful = np.bincount(sources, weights=labels)
    folds = min(count, int(np.count_nonzero(harmful)))
    fold_of_source = np.empty(len(harmful), np.int64)
    fold_of_source[np.argsort(-harmful, kind="stable")] = np.arange(len(harmful)) % max(folds, 1)
    pairs = []
    for fold in range(folds):
        is_held = fold_of_source[sources] == fold
        training = np.flatnonzero(~is_held & ~np.isin(codes, codes[is_held]))
        known = [len(np.unique(codes[training][labels[training] == label])) for label in (0, 1)]
        if min(known) < LEAST_GROUPS:
            return None
        pairs.append((training, np.flatnonzero(is_held)))
    return pairs or None


def grouped_folds(
    labels: Array, codes: Array, sources: Array | None, count: int, seed: int
) -> Sequence[tuple[Array, Array]]:
    """``source_folds`` where the sources allow them, otherwise ``stratified_folds``."""
    return source_folds(labels, codes, sources, count) or stratified_folds(
        labels, codes, count, seed
    )
