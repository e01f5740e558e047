"""Pooling against its float64 oracle: masks, padding on either side, long texts, every dtype."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.kernels import pool_last, pool_mean
from tests import tolerances
from tests.kernel_cases import WIDTHS, Array, states
from tests.reference import pooling as reference

Pool = Callable[..., Array]
TOKENS = (1, 2, 31, 255, 256, 257, 700)


def masks(tokens: int) -> list[Array]:
    """Right padding, left padding, and holes; the last token that counts differs in each."""
    at = np.arange(tokens)
    return [at < (tokens + 1) // 2, at >= tokens // 2, at % 3 == (tokens - 1) % 3]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("width", WIDTHS)
def test_pooling_agrees_with_the_oracle(tokens: int, width: int) -> None:
    """Means are within their rounding and last tokens are exact, whichever side is padded."""
    h = states(width, tokens, depth=1)
    for mask in [None, *masks(tokens)]:
        kept = np.ones(tokens, bool) if mask is None else mask
        error = [tolerances.mean(layer[kept].astype(np.float64)) for layer in h]
        assert (np.abs(pool_mean(h, mask) - reference.mean(h, kept)) <= error).all()
        np.testing.assert_array_equal(pool_last(h, mask), reference.last(h, kept))


def test_a_mask_may_be_bool_or_integer() -> None:
    """Zero is a token that does not count, whatever the mask's dtype, stride or sign."""
    h = states(9, 6)
    mask = np.array([0, 1, 1, 0, 1, 0])
    expected = pool_mean(h, mask.astype(bool))
    for other in (mask, -mask, mask.astype(np.uint8), mask * 0.5, np.repeat(mask, 2)[::2]):
        np.testing.assert_array_equal(pool_mean(h, other), expected)


@pytest.mark.parametrize("pool", [pool_mean, pool_last])
def test_padding_may_hold_anything(pool: Pool) -> None:
    """Values of tokens that do not count change no bit, not even NaN."""
    h, mask = states(33, 12), np.arange(12) % 4 != 3
    clean = pool(h, mask)
    h[:, ~mask] = np.nan
    np.testing.assert_array_equal(pool(h, mask), clean)


def test_not_finite_is_never_lost() -> None:
    """NaN and infinity in a token that counts reach the mean of their dimension, and no other."""
    for value in (np.nan, np.inf, -np.inf):
        h = states(33, 300)
        h[2, 7, 5] = value
        finite = np.isfinite(pool_mean(h))
        assert not finite[2, 5]
        assert finite.sum() == finite.size - 1


@given(tokens=st.sampled_from(TOKENS), width=st.sampled_from(WIDTHS), seed=st.integers(0, 99))
def test_token_strides_change_no_bit(tokens: int, width: int, seed: int) -> None:
    """Tokens pooled out of a larger array, backwards or spread, equal those of a copy."""
    big = states(width, 2 * tokens, depth=2, seed=seed)
    for view in (big[:, ::2], big[:, ::-2], big[:, :tokens]):
        for pool in (pool_mean, pool_last):
            np.testing.assert_array_equal(pool(view), pool(view.copy()))


@pytest.mark.parametrize("pool", [pool_mean, pool_last])
def test_half_precision_equals_its_float32(pool: Pool) -> None:
    """float16, and bfloat16 as bits, pool to the bits of their float32 values."""
    h = states(97, 300, depth=2)
    half = h.astype(np.float16)
    np.testing.assert_array_equal(pool(half), pool(half.astype(np.float32)))
    bits = (h.view(np.uint32) >> 16).astype(np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(pool(bits), pool(wide))


@pytest.mark.shared
def test_golden_vectors(shared: Path) -> None:
    """The published masked means are reproduced."""
    golden = json.loads((shared / "golden" / "siren_golden.json").read_text(encoding="utf-8"))
    for hidden, mask, pooled in zip(
        golden["hidden"], golden["mask"], golden["pooled"], strict=True
    ):
        mean = pool_mean([np.asarray(hidden, np.float32)], np.asarray(mask))
        np.testing.assert_allclose(mean[0], pooled, rtol=tolerances.GOLDEN, atol=1e-7)
