"""Ranges: merged parts equal the ranges of all rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.weightwatch.ranges import KEPT, Ranges
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import ROLES
from tests.calibration.cosines import ASSISTANT, USER, clean_extremes
from tests.reference import ranges as oracle


def _same(one: Ranges, other: Ranges) -> None:
    np.testing.assert_array_equal(one.lowest, other.lowest)
    np.testing.assert_array_equal(one.highest, other.highest)
    np.testing.assert_array_equal(one.items, other.items)


@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=4),
    st.sampled_from([(USER,), (USER, ASSISTANT)]),
    st.integers(0, 2**32 - 1),
)
def test_merged_shards_equal_all_rows_at_once(
    sizes: list[int], roles: tuple[int, ...], seed: int
) -> None:
    """Merged parts are equal to the bit, in any order, and of bounded size."""
    shards = [clean_extremes(n, seed + i, k=3, roles=roles) for i, n in enumerate(sizes)]
    whole = Ranges.of(np.concatenate(shards))
    for order in (shards, shards[::-1]):
        merged = Ranges.of(order[0])
        for shard in order[1:]:
            merged = merged.merged(Ranges.of(shard))
        _same(merged, whole)
    assert whole.lowest.shape == (len(ROLES), min(KEPT, sum(sizes)), 3)
    assert whole.items.tolist() == [sum(sizes) * (role in roles) for role in range(len(ROLES))]


@given(st.integers(1, 400), st.floats(0, 0.2), st.integers(0, 2**32 - 1))
def test_trimming_is_the_percentile_of_the_rows(n: int, share: float, seed: int) -> None:
    """The kept values give numpy's percentile of all rows."""
    extremes = clean_extremes(n, seed)
    low, high = Ranges.of(extremes).trimmed(share)
    for role in (USER, ASSISTANT):
        expected = oracle.percentile_ranges(extremes[:, role, 0], extremes[:, role, 1], share)
        np.testing.assert_allclose(low[role], expected[0], rtol=1e-6)
        np.testing.assert_allclose(high[role], expected[1], rtol=1e-6)


def test_untrimmed_bounds_are_the_most_extreme_values() -> None:
    """Untrimmed bounds are the extremes; a role without rows has infinite bounds."""
    extremes = clean_extremes(50, 1, roles=(USER,))
    low, high = Ranges.of(extremes).trimmed()
    np.testing.assert_array_equal(low[USER], extremes[:, USER, 0].min(axis=0))
    np.testing.assert_array_equal(high[USER], extremes[:, USER, 1].max(axis=0))
    assert (low[ASSISTANT] == np.inf).all()
    assert (high[ASSISTANT] == -np.inf).all()


def test_trimming_beyond_what_is_kept_is_refused() -> None:
    """A share that needs more values than are kept is refused."""
    ranges = Ranges.of(clean_extremes(4 * KEPT, 2))
    assert ranges.trimmed(0.2)[0].shape == (len(ROLES), 6)
    with pytest.raises(InputError, match="Trim less"):
        ranges.trimmed(0.3)
    with pytest.raises(InputError, match="a share from 0 to below"):
        ranges.trimmed(0.5)


def test_rows_that_are_not_numbers_are_refused() -> None:
    """NaN is refused, because a minimum may hide it."""
    extremes = clean_extremes(20, 4)
    extremes[7, USER, 1, 2] = np.nan
    with pytest.raises(CalibrationError, match="found NaN"):
        Ranges.of(extremes)
