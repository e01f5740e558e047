"""The probe's kernel against its float64 oracle: logits, windows, parts, layouts and refusals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import kernels
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import ProbeKernel
from tests import tolerances
from tests.kernel_cases import WIDTHS, Array, levels, states
from tests.reference import span as reference

LAYERS = (1, 3)
BIAS = 0.25
TOKENS = 23
some_width = st.sampled_from(WIDTHS)
seeds = st.integers(0, 99)


@pytest.fixture(autouse=True)
def _default_level() -> Iterator[None]:
    yield
    kernels.set_level(None)


def _weights(width: int, seed: int = 0) -> Array:
    return np.random.default_rng([9, seed]).normal(size=(2, width)).astype(np.float32)


def _probe(width: int, window: int, seed: int = 0) -> ProbeKernel:
    return ProbeKernel(_weights(width, seed), np.array(LAYERS), BIAS, window)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("window", [1, 4, TOKENS - 1, TOKENS, TOKENS + 1])
def test_the_best_window_agrees_with_the_oracle(width: int, window: int) -> None:
    """Its mean is within the rounding of a logit, and its own mean by the oracle is as large."""
    h, weights = states(width, TOKENS), _weights(width)
    logits = reference.logits(h, weights, LAYERS, BIAS)
    expected, _ = reference.best_window(logits, window)
    magnitudes = reference.logits(np.abs(h), np.abs(weights), LAYERS, BIAS)
    bound = tolerances.logit(magnitudes, logits, width).max()
    probe = _probe(width, window)
    found = probe.windows(h)
    assert abs(found[0] - expected) <= bound
    first, end = probe.place(found)
    assert end - first == min(window, TOKENS)
    assert abs(logits[first:end].mean() - expected) <= 2 * bound
    assert found[2] == TOKENS


@pytest.mark.parametrize("width", WIDTHS)
def test_every_level_gives_the_same_bits(width: int) -> None:
    """Windows of every dtype, NaN too, are bit-identical on every instruction set."""
    h = states(width, TOKENS)
    broken = h.copy()
    broken[1, 9] = np.nan
    results = set()
    for name in levels():
        kernels.set_level(name)
        found = [
            _probe(width, 5).windows(tokens)
            for some in (h, broken)
            for tokens in (some, some.astype(np.float16), (some.view(np.uint32) >> 16).astype("H"))
        ]
        results.add(np.stack(found).tobytes())
    assert len(results) == 1


@given(width=some_width, window=st.integers(1, TOKENS + 3), seed=seeds, data=st.data())
def test_a_text_in_parts_gives_the_bits_of_the_whole(
    width: int, window: int, seed: int, data: st.DataObject
) -> None:
    """Any split of the tokens among calls gives the same bits."""
    probe, h = _probe(width, window, seed), states(width, TOKENS, seed=seed)
    cuts = sorted(data.draw(st.lists(st.integers(0, TOKENS), max_size=4)))
    found = probe.windows(h[:, :0])
    for start, end in zip([0, *cuts], [*cuts, TOKENS], strict=True):
        assert probe.windows(h[:, start:end], into=found) is found
    np.testing.assert_array_equal(found, probe.windows(h))


@given(width=some_width, window=st.integers(1, 9), seed=seeds)
def test_harmless_text_around_it_does_not_dilute_the_window(
    width: int, window: int, seed: int
) -> None:
    """Tokens with the lowest logit before and after leave the best window as it is, only moved.

    A window that ends with the lowest token itself has the same mean as the one a token earlier.
    """
    probe, h = _probe(width, window, seed), states(width, TOKENS, seed=seed)
    logits = reference.logits(h, _weights(width, seed), LAYERS, BIAS)
    lowest = int(np.argmin(logits))
    dull = h[:, [lowest]].repeat(40, axis=1)
    if len(set(logits)) < TOKENS:
        return
    alone = probe.windows(h)
    long = probe.windows(np.concatenate([dull, h, dull], axis=1))
    assert long[0] >= alone[0]
    start, end = probe.place(alone)
    assert probe.place(long)[0] - start == 40 or lowest in (start, end - 1)


@given(width=some_width, seed=seeds)
def test_masked_tokens_do_not_count(width: int, seed: int) -> None:
    """They may hold anything, and the rest is as if they were not there."""
    probe, h = _probe(width, 4, seed), states(width, TOKENS, seed=seed)
    mask = np.random.default_rng(seed).random(TOKENS) < 0.6
    h[:, ~mask] = np.nan
    np.testing.assert_array_equal(probe.windows(h, mask=mask), probe.windows(h[:, mask]))


@given(width=some_width, seed=seeds)
def test_layout_changes_no_bit(width: int, seed: int) -> None:
    """Any row stride, and a mapping of the states that are read, make no difference."""
    probe, big = _probe(width, 3, seed), states(width, 12, seed=seed)
    h = np.ascontiguousarray(big[:, ::3])
    few = {layer: h[layer] for layer in LAYERS}
    for layout in (tuple(h), list(h), big[:, ::3], few):
        np.testing.assert_array_equal(probe.windows(layout), probe.windows(h))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4, TOKENS - 1])
def test_a_logit_that_is_not_finite_stays(value: float, place: int) -> None:
    """The best mean is NaN from that token on, also after the window has left it."""
    h = states(16, TOKENS)
    h[3, place, 5] = value
    found = _probe(16, 4).windows(h)
    assert np.isnan(found[0])
    assert np.isnan(_probe(16, 4).windows(states(16, TOKENS), into=found)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((2, 0), np.float32)}, "weights: found shape"),
        ({"weights": np.full((2, 8), np.nan, np.float32)}, "weights: .*finite"),
        ({"layers": np.array([3, 1])}, "not ascending"),
        ({"layers": np.array([1, 1])}, "not ascending"),
        ({"layers": np.array([-1, 1])}, "below 0"),
        ({"bias": np.inf}, "bias: found inf"),
        ({"window": 0}, "window: found 0"),
        ({"window": 4097}, "window: found 4097"),
    ],
)
def test_what_cannot_be_a_probe_is_refused(change: dict[str, Any], message: str) -> None:
    """Every fault is named with what was expected."""
    sound = {"weights": _weights(8), "layers": np.array(LAYERS), "bias": 0.0, "window": 4}
    with pytest.raises(InputError, match=message):
        ProbeKernel(**(sound | change))


def test_states_of_another_model_are_refused() -> None:
    """Too few states, another width, a mask or windows of another length."""
    probe, h = _probe(16, 4), states(16, TOKENS)
    for given_states, options, message in (
        (h[:2], {}, "expected at least those numbered 1, 3"),
        (h[:, :, :9], {}, "expected 16"),
        (h, {"mask": np.ones(3)}, "mask: found shape"),
        (h, {"into": np.zeros(3, np.float32)}, "into: found float32"),
    ):
        with pytest.raises(InputError, match=message):
            probe.windows(given_states, **options)
