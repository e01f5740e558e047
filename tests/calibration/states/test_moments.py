"""Moments: merged parts equal the moments of all rows, in any order and grouping."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.states.moments import Moments
from layerguard.runtime.types import Array

WIDTH = 3
SIZES = st.lists(st.integers(0, 9), min_size=3, max_size=3)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(n: int, seed: int) -> Array:
    """Columns whose means lie far from zero and whose spreads differ."""
    rng = np.random.default_rng(seed)
    found: Array = rng.normal(size=(n, WIDTH)) * np.array([0.01, 1.0, 30.0]) + np.array([5, 0, -40])
    return found


def close(one: Moments, other: Moments, tolerance: float = 1e-12) -> None:
    """Equal within ``tolerance`` of the rows' magnitudes."""
    np.testing.assert_array_equal(one.count, other.count)
    scale = 1 + np.abs(other.mean)
    np.testing.assert_allclose(one.mean / scale, other.mean / scale, atol=tolerance)
    squares = 1 + other.squares
    np.testing.assert_allclose(one.squares / squares, other.squares / squares, atol=tolerance)


@given(sizes=SIZES, seed=SEEDS)
def test_merging_is_associative_and_commutative(sizes: list[int], seed: int) -> None:
    """(a + b) + c, a + (b + c) and c + (b + a), to 1e-12."""
    a, b, c = (Moments.of(rows_of(n, seed + i)) for i, n in enumerate(sizes))
    close(a.merged(b).merged(c), a.merged(b.merged(c)))
    close(a.merged(b).merged(c), c.merged(b.merged(a)))


@given(n=st.integers(0, 9), seed=SEEDS)
def test_no_rows_are_the_neutral_element(n: int, seed: int) -> None:
    """Merging with empty moments changes nothing, to the bit."""
    some = Moments.of(rows_of(n, seed))
    for found in (some.merged(Moments.none(WIDTH)), Moments.none(WIDTH).merged(some)):
        assert (found.count, found.mean.tolist()) == (some.count, some.mean.tolist())
        assert found.squares.tolist() == some.squares.tolist()


@given(n=st.integers(1, 60), cuts=st.lists(st.integers(0, 60), max_size=5), seed=SEEDS)
def test_parts_give_what_all_rows_give(n: int, cuts: list[int], seed: int) -> None:
    """Merged parts give numpy's mean and deviation for any cuts and any order."""
    rows = rows_of(n, seed)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [Moments.of(rows[a:b]) for a, b in pairwise(edges)]
    order = np.random.default_rng(seed).permutation(len(parts))
    merged = Moments.none(WIDTH)
    for i in order:
        merged = merged.merged(parts[i])
    assert merged.count == n
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.deviation, rows.std(axis=0), rtol=1e-9, atol=1e-12)


@given(n=st.integers(1, 40), groups=st.integers(1, 5), seed=SEEDS)
def test_groups_are_counted_apart(n: int, groups: int, seed: int) -> None:
    """Each group has its own moments; a number outside 0..groups-1 belongs to no group."""
    rows = rows_of(n, seed)
    of_row = np.random.default_rng(seed).integers(-1, groups + 1, n)
    before = rows.copy()
    found = Moments.of_groups(rows, of_row, groups)
    assert (rows == before).all()
    for group in range(groups):
        close(found[group], Moments.of(rows[of_row == group]))
    close(found.total(), Moments.of(rows[(of_row >= 0) & (of_row < groups)]))


@given(sizes=st.tuples(st.integers(0, 9), st.integers(0, 9)), seed=SEEDS)
def test_without_undoes_merged(sizes: tuple[int, int], seed: int) -> None:
    """``without`` gives the moments of the other rows; of no other rows, empty moments."""
    part, rest = (Moments.of(rows_of(n, seed + i)) for i, n in enumerate(sizes))
    close(part.merged(rest).without(part), rest, 1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_mean_far_from_zero_costs_no_digits(offset: float) -> None:
    """A mean of 1e6 loses no digits; sums of squares would keep four of sixteen."""
    rows = np.random.default_rng(0).normal(size=(400, 1))
    merged = Moments.none(1)
    for start in range(0, 400, 7):
        merged = merged.merged(Moments.of(rows[start : start + 7] + offset))
    assert merged.deviation[0] == pytest.approx(rows.std(), rel=1e-9)


def test_a_part_may_hold_all_the_spread() -> None:
    """Rounding never makes the rest's variance negative."""
    part = Moments.of(np.array([[1e8], [-1e8]]))
    rest = Moments.of(np.full((5, 1), 0.3))
    left = part.merged(rest).without(part)
    assert left.count == 5
    assert left.squares[0] >= 0
    assert left.mean[0] == pytest.approx(0.3, abs=1e-6)
