"""The same bits from the same values: whatever the level, batch, layout, dtype or thread."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import kernels
from tests.kernel_cases import SCORERS, WIDTHS, Array, levels, states

ROWS = 70  # more than the batch that SIREN scores at once
both = pytest.mark.parametrize("scorer", SCORERS)


@pytest.fixture(autouse=True)
def _default_level() -> Iterator[None]:
    yield
    kernels.set_level(None)


@both
@pytest.mark.parametrize("width", WIDTHS)
def test_every_level_gives_the_same_bits(scorer: str, width: int) -> None:
    """Scores, z and NaN are bit-identical on every instruction set that runs here."""
    h, score = states(width, ROWS), SCORERS[scorer](width)
    h[1, 3] = np.nan
    h[2, 4] = np.inf
    results = set()
    for name in levels():
        kernels.set_level(name)
        assert kernels.level() == name
        results.add(score(h).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_every_level_pools_to_the_same_bits(width: int) -> None:
    """Means and last tokens of every dtype are bit-identical on every instruction set."""
    h = states(width, 300, depth=1)
    h[0, 1] = np.nan
    half = h.astype(np.float16)
    bits = (h.view(np.uint32) >> 16).astype(np.uint16)
    results = set()
    for name in levels():
        kernels.set_level(name)
        pooled = [
            pool(tokens)
            for tokens in (h, half, bits)
            for pool in (kernels.pool_mean, kernels.pool_last)
        ]
        results.add(np.stack(pooled).tobytes())
    assert len(results) == 1


@both
@given(width=st.sampled_from(WIDTHS), rows=st.integers(1, ROWS), seed=st.integers(0, 99))
def test_a_batch_gives_the_bits_of_its_rows(scorer: str, width: int, rows: int, seed: int) -> None:
    """A row's result does not depend on the rows beside it."""
    h, score = states(width, rows, seed=seed), SCORERS[scorer](width)
    batch = score(h)
    row = seed % rows
    np.testing.assert_array_equal(score(h[:, row : row + 1])[0], batch[row])


@both
@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 99))
def test_layout_changes_no_bit(scorer: str, width: int, seed: int) -> None:
    """A tuple, an iterator, any row stride, and different strides a layer make no difference."""
    big, score = states(width, 12, seed=seed), SCORERS[scorer](width)
    h = np.ascontiguousarray(big[:, ::3])
    expected = score(h)
    mixed = [layer if index % 2 else layer.copy() for index, layer in enumerate(big[:, ::3])]
    transposed = np.ascontiguousarray(h.swapaxes(0, 1)).swapaxes(0, 1)
    for layout in (tuple(h), list(h), big[:, ::3], mixed, transposed, iter(h.copy())):
        np.testing.assert_array_equal(score(layout), expected)
    np.testing.assert_array_equal(score(h[:, ::-1]), expected[::-1])
    h.flags.writeable = False
    np.testing.assert_array_equal(score(h), expected)


@both
@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 99))
def test_half_precision_gives_the_bits_of_its_float32(scorer: str, width: int, seed: int) -> None:
    """float16 and bfloat16, by its own dtype or as uint16, equal the widened states."""
    h, score = states(width, 3, seed=seed), SCORERS[scorer](width)
    half = h.astype(np.float16)
    np.testing.assert_array_equal(score(half), score(half.astype(np.float32)))
    brain = h.astype(ml_dtypes.bfloat16)
    expected = score(brain.astype(np.float32))
    np.testing.assert_array_equal(score(brain), expected)
    np.testing.assert_array_equal(score(brain.view(np.uint16)), expected)


@both
def test_dlpack_objects_are_read_in_place(scorer: str) -> None:
    """Tensors of other libraries are read through ``__dlpack__``."""

    class Tensor:
        def __init__(self, array: Array) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    h, score = states(33, 2), SCORERS[scorer](33)
    np.testing.assert_array_equal(score([Tensor(layer) for layer in h]), score(h))


@both
def test_threads_share_a_kernel(scorer: str) -> None:
    """Many threads with one kernel, interrupted often, get the bits that one thread gets."""
    score = SCORERS[scorer](65)
    inputs = [states(65, rows, seed=rows) for rows in range(1, 25)]
    expected = [score(h).tobytes() for h in inputs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda h: score(h).tobytes(), inputs * 20))
    finally:
        sys.setswitchinterval(interval)
    assert results == expected * 20


@both
def test_flush_to_zero_of_the_caller_changes_no_bit(scorer: str) -> None:
    """A thread in which another library turned on flush-to-zero scores the same."""
    torch = pytest.importorskip("torch")
    h = states(65, 2) * np.float32(1e-40)
    score = SCORERS[scorer](65)
    expected = score(h)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no flush-to-zero mode")
    try:
        np.testing.assert_array_equal(score(h), expected)
    finally:
        torch.set_flush_denormal(False)
