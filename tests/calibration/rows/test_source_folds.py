"""Folds that hold out whole sources."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.rows.source_folds import grouped_folds, source_folds
from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.runtime.types import Array

EACH = 24
"""Rows of a source; in a harm source every second row is harmful."""


def rows_of(harm: int, benign: int) -> tuple[Array, Array, Array]:
    """Labels, groups of one row, and sources of some harm sources and benign ones, shuffled."""
    rng = np.random.default_rng(harm + benign)
    sources = np.repeat(rng.permutation(harm + benign), EACH)
    labels = np.where(np.arange(len(sources)) < harm * EACH, np.arange(len(sources)) % 2, 0)
    order = rng.permutation(len(sources))
    return labels[order], np.arange(len(sources)), sources[order]


@given(harm=st.integers(2, 7), benign=st.integers(0, 6), count=st.integers(2, 6))
def test_every_row_is_held_out_once_with_its_source(harm: int, benign: int, count: int) -> None:
    """Training and held-out rows share no source; every fold holds out harmful rows."""
    labels, codes, sources = rows_of(harm, benign)
    folds = source_folds(labels, codes, sources, count)
    assert folds is not None
    assert len(folds) == min(count, harm)
    for training, held in folds:
        assert not set(sources[training]) & set(sources[held])
        assert set(labels[training]) == {0, 1}
        assert labels[held].any()
        assert len(training) + len(held) == len(labels)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(len(labels)))


def test_a_group_in_two_sources_is_not_trained_on_and_held_out() -> None:
    """The row of a prompt that two sources have leaves the training rows of both folds."""
    labels, codes, sources = rows_of(2, 0)
    first, second = (int(np.flatnonzero(sources == source)[0]) for source in (0, 1))
    codes[second] = codes[first]
    folds = source_folds(labels, codes, sources, 5)
    assert folds is not None
    for training, held in folds:
        assert not set(codes[training]) & set(codes[held])
        assert len(training) == EACH - 1


@pytest.mark.parametrize(("harm", "benign"), [(1, 0), (1, 3), (0, 2)])
def test_two_sources_with_harmful_rows_are_needed(harm: int, benign: int) -> None:
    """With fewer there are no such folds."""
    labels, codes, sources = rows_of(harm, benign)
    assert source_folds(labels, codes, sources, 5) is None


@pytest.mark.parametrize("sources", [None, np.zeros(2 * EACH, np.int64)])
def test_one_source_is_divided_by_groups(sources: Array | None) -> None:
    """``grouped_folds`` are then the stratified ones."""
    labels, codes, _ = rows_of(2, 0)
    found = grouped_folds(labels, codes, sources, 3, seed=0)
    expected = stratified_folds(labels, codes, 3, seed=0)
    for pair, other in zip(found, expected, strict=True):
        assert [part.tolist() for part in pair] == [part.tolist() for part in other]


def test_a_source_with_few_harmful_rows_does_not_train_alone() -> None:
    """Nine harmful texts in one source are too few to train on without the other."""
    labels, codes, sources = rows_of(2, 0)
    harmful = np.flatnonzero((sources == 0) & (labels == 1))
    labels[harmful[9:]] = 0
    assert source_folds(labels, codes, sources, 5) is None
