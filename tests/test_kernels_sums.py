"""The running mean against the mean of all tokens: pieces, dtypes, levels, what it refuses."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import kernels
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import RunningMean, pool_mean
from tests import tolerances
from tests.kernel_cases import WIDTHS, Array, levels, states
from tests.reference import pooling as reference

DEPTH = 2


@pytest.fixture(autouse=True)
def _default_level() -> Iterator[None]:
    yield
    kernels.set_level(None)


def running(h: Array, sizes: list[int]) -> RunningMean:
    """The mean of the tokens of ``h``, added in pieces of the given sizes."""
    mean, start = RunningMean(len(h), h.shape[2]), 0
    for size in [*sizes, h.shape[1]]:
        mean.add(h[:, start : start + size])
        start += size
    assert mean.count == h.shape[1]
    return mean


@given(
    width=st.sampled_from(WIDTHS),
    tokens=st.sampled_from((1, 2, 31, 257)),
    sizes=st.lists(st.integers(0, 99), max_size=4),
)
def test_the_mean_of_a_growing_text(width: int, tokens: int, sizes: list[int]) -> None:
    """It is the oracle's within one rounding, the pooled mean's within its own, in any pieces."""
    h = states(width, tokens, depth=DEPTH - 1)
    found = running(h, sizes).mean
    exact = reference.mean(h, np.ones(tokens, bool))
    values = h.astype(np.float64)
    assert (np.abs(found - exact) <= [tolerances.running_mean(v) for v in values]).all()
    bound = [tolerances.running_mean(v) + tolerances.mean(v) for v in values]
    assert (np.abs(found - pool_mean(h)) <= bound).all()
    np.testing.assert_array_equal(found, running(h, []).mean)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_level_and_dtype_gives_the_same_bits(width: int) -> None:
    """Whatever the instruction set; and half precision adds the values that it stands for."""
    h = states(width, 9, depth=DEPTH - 1)
    h[0, 1, 0] = np.nan
    half = h.astype(np.float16)
    bits = (h.view(np.uint32) >> 16).astype(np.uint16)
    found = set()
    for name in levels():
        kernels.set_level(name)
        found.add(b"".join(running(a, [2, 3]).mean.tobytes() for a in (h, half, bits)))
        np.testing.assert_array_equal(
            running(half, [1]).mean, running(half.astype(np.float32), [4]).mean
        )
    assert len(found) == 1


def test_copies_part_ways() -> None:
    """What is added to a copy is not in the original, and a mean once given stays."""
    h = states(33, 6, depth=DEPTH - 1)
    mean = running(h, [])
    before, copy = mean.mean, mean.copy()
    copy.add(h)
    assert (mean.count, copy.count) == (6, 12)
    assert mean.mean is before
    np.testing.assert_array_equal(before, running(h, [1]).mean)


def test_before_the_first_token() -> None:
    """There is no mean: NaN, which no detector takes for a score."""
    mean = RunningMean(DEPTH, 5)
    mean.add(states(5, 0, depth=DEPTH - 1))
    assert mean.count == 0
    assert np.isnan(mean.mean).all()


def test_states_that_do_not_fit() -> None:
    """Another width, number of layers or layout is refused by name, and nothing is added."""
    h = states(33, 4, depth=DEPTH - 1)
    mean = running(h, [])
    for wrong, words in (
        (h[:, :, :32], "found states of width 32, expected 33"),
        (h[:1], "found 1 states, expected 2"),
        (h.astype(np.float64), "found dtype float64"),
        ([h[0], h[1, :2]], r"layer 1: found float32 \(2, 33\)"),
        (h[:, 0], r"found shape \(33,\)"),
        (h.tolist(), "found list that numpy cannot read"),
    ):
        with pytest.raises(InputError, match=words):
            mean.add(wrong)
    assert mean.count == 4
    np.testing.assert_array_equal(mean.mean, running(h, []).mean)
