"""Folds: groups stay whole, folds are balanced, maxima are those of the groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.rows.folds import (
    group_codes,
    group_maxima,
    one_fold_per_source,
    random_folds,
)
from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.runtime.errors import CalibrationError, InputError

GROUPS = st.lists(st.integers(0, 12), min_size=1, max_size=80)


@given(groups=GROUPS, count=st.integers(1, 8), seed=st.integers(0, 99))
def test_random_folds_keep_groups_whole_and_sizes_equal(
    groups: list[int], count: int, seed: int
) -> None:
    """A group has one fold; folds differ by one group at most; none is empty."""
    codes = group_codes(groups, len(groups))
    count = min(count, len(set(groups)))
    folds = random_folds(codes, count, seed)
    fold_of = dict(zip(codes.tolist(), folds.tolist(), strict=True))
    assert all(fold_of[code] == fold for code, fold in zip(codes, folds, strict=True))
    sizes = np.bincount(list(fold_of.values()), minlength=count)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


@given(data=st.data())
def test_stratified_folds_never_divide_a_group(data: st.DataObject) -> None:
    """No group is on both sides of a split, and every row is held out once."""
    n = data.draw(st.integers(40, 80))
    groups = data.draw(st.lists(st.integers(0, 25), min_size=n, max_size=n))
    labels = np.arange(n) % 2
    codes = group_codes(groups, n)
    if len(set(groups)) < 5:
        return
    held_out = np.zeros(n, dtype=int)
    for training, held in stratified_folds(labels, codes, 5, seed=0):
        assert not set(codes[training]) & set(codes[held])
        held_out[held] += 1
    assert (held_out == 1).all()


@given(groups=GROUPS, seed=st.integers(0, 99))
def test_group_maxima_are_those_of_a_loop(groups: list[int], seed: int) -> None:
    """Each group counts once, with its largest score, ascending."""
    codes = group_codes(groups, len(groups))
    scores = np.random.default_rng(seed).normal(size=len(groups))
    expected = sorted(scores[codes == code].max() for code in set(codes.tolist()))
    assert group_maxima(scores, codes).tolist() == expected


def test_groups_are_numbered_by_first_appearance() -> None:
    """Labels may be any hashable values, in a list or an array."""
    assert group_codes(["b", "a", "b"], 3).tolist() == [0, 1, 0]
    assert group_codes(np.array([7, 7, 3]), 3).tolist() == [0, 0, 1]
    assert group_codes(None, 3).tolist() == [0, 1, 2]


def test_groups_of_another_length_are_refused() -> None:
    """The number of labels must equal the number of rows."""
    with pytest.raises(InputError, match="found 2, expected 3"):
        group_codes([1, 2], 3)


@given(data=st.data())
def test_source_folds_are_the_sources_and_keep_groups_whole(data: st.DataObject) -> None:
    """Rows without shared groups get the fold of their source; a group goes with its first row."""
    n = data.draw(st.integers(12, 60))
    sources = ["web", "chat", None] * 4 + data.draw(
        st.lists(st.sampled_from(["web", "chat", None, "mail"]), min_size=n - 12, max_size=n - 12)
    )
    alone = one_fold_per_source(np.arange(n), sources, 1)
    pairs = set(zip(sources, alone.tolist(), strict=True))
    assert len(pairs) == len(set(sources)) == alone.max() + 1
    codes = group_codes([i // 2 for i in range(n)], n)
    folds = one_fold_per_source(codes, sources[::2] + sources[1::2], 1)
    first = {int(code): int(folds[i]) for i, code in reversed(list(enumerate(codes)))}
    assert all(first[int(code)] == fold for code, fold in zip(codes, folds, strict=True))
    assert set(folds.tolist()) == set(range(folds.max() + 1))


def test_too_few_sources_are_refused() -> None:
    """Two sources, no sources, and a source beside which hardly a prompt is left."""
    codes = np.arange(40)
    with pytest.raises(CalibrationError, match=r"rows of 2 source\(s\); expected at least 3"):
        one_fold_per_source(codes, ["a", "b"] * 20, 10)
    with pytest.raises(CalibrationError, match=r"rows of 1 source\(s\)"):
        one_fold_per_source(codes, None, 10)
    with pytest.raises(CalibrationError, match="found 4 prompts outside the largest source"):
        one_fold_per_source(codes, ["a"] * 36 + ["b", "b", "c", "c"], 10)
