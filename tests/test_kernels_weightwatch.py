"""The WeightWatch kernels against their float64 oracle and the published golden vectors."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import kernels
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import DirectionsKernel, RangesKernel
from tests import tolerances
from tests.kernel_cases import DEPTH, WIDTHS, Array, levels, states, watched
from tests.reference import weightwatch as reference
from tests.test_kernels_errors import bad_layouts

WIDE = (*WIDTHS, 1025, 2100)  # a token's elements are taken 1,024 at a time
TOKENS = 23  # more than are taken together on any level, and not a multiple of them
some_width = st.sampled_from(WIDE)
seeds = st.integers(0, 99)


@pytest.fixture(autouse=True)
def _default_level() -> Iterator[None]:
    yield
    kernels.set_level(None)


def _roles(tokens: int, seed: int = 0) -> Array:
    return np.random.default_rng([7, seed]).integers(0, 4, tokens).astype(np.uint8)


@pytest.mark.parametrize("width", WIDE)
@pytest.mark.parametrize("tokens", [1, 2, 6, 7, TOKENS])
def test_extremes_agree_with_the_oracle(width: int, tokens: int) -> None:
    """Every extreme is within the rounding of its cosine; absent roles keep their infinities."""
    directions, layers = watched(width)
    h, roles = states(width, tokens), _roles(tokens)
    cosine = reference.cosines(h, directions, layers)
    expected = reference.extremes(cosine, roles)
    magnitudes = reference.cosines(np.abs(h), np.abs(directions), layers)
    bound = tolerances.cosine(magnitudes, cosine, width).max(axis=1)
    found = DirectionsKernel(directions, layers).extremes(h, roles=roles)
    seen = np.isin(np.arange(4), roles)
    assert (np.abs(found[seen] - expected[seen]) <= bound).all()
    np.testing.assert_array_equal(found[~seen], expected[~seen])


@pytest.mark.parametrize("width", WIDE)
def test_every_level_gives_the_same_bits(width: int) -> None:
    """Extremes of every dtype, NaN too, are bit-identical on every instruction set."""
    directions, layers = watched(width)
    h = states(width, TOKENS)
    h[1, 3], h[2, 4, 0], h[5, 5] = np.nan, np.inf, 0
    half = h.astype(np.float16)
    bits = (h.view(np.uint32) >> 16).astype(np.uint16)
    results = set()
    for name in levels():
        kernels.set_level(name)
        found = [
            DirectionsKernel(directions.astype(dtype), layers).extremes(
                tokens, roles=_roles(TOKENS)
            )
            for dtype in (np.float32, np.float16)
            for tokens in (h, half, bits)
        ]
        results.add(np.stack(found).tobytes())
    assert len(results) == 1


@given(width=some_width, seed=seeds, data=st.data())
def test_a_text_in_parts_gives_the_bits_of_the_whole(
    width: int, seed: int, data: st.DataObject
) -> None:
    """A token's cosines do not depend on its company: any split gives the same bits."""
    kernel = DirectionsKernel(*watched(width, seed=seed))
    h, roles = states(width, TOKENS, seed=seed), _roles(TOKENS, seed)
    cuts = data.draw(st.lists(st.integers(0, TOKENS), max_size=4))
    found = kernel.untouched()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), TOKENS], strict=True):
        part = kernel.extremes(h[:, start:end], roles=roles[start:end], into=found)
        assert part is found
    np.testing.assert_array_equal(found, kernel.extremes(h, roles=roles))


@given(width=some_width, seed=seeds)
def test_layout_changes_no_bit(width: int, seed: int) -> None:
    """Any row stride, a mapping of the states that are read, and order make no difference."""
    kernel = DirectionsKernel(*watched(width, seed=seed))
    big = states(width, 12, seed=seed)
    h = np.ascontiguousarray(big[:, ::3])
    expected = kernel.extremes(h)
    transposed = np.ascontiguousarray(h.swapaxes(0, 1)).swapaxes(0, 1)
    few = {layer: h[layer] for layer in kernel.layers}
    for layout in (tuple(h), list(h), big[:, ::3], transposed, few, h[:, ::-1]):
        np.testing.assert_array_equal(kernel.extremes(layout), expected)


@given(width=some_width, seed=seeds)
def test_masked_tokens_do_not_count(width: int, seed: int) -> None:
    """They may hold anything, and the rest is as if they were not there."""
    kernel = DirectionsKernel(*watched(width, seed=seed))
    h, roles = states(width, TOKENS, seed=seed), _roles(TOKENS, seed)
    mask = np.random.default_rng(seed).random(TOKENS) < 0.6
    expected = kernel.extremes(h[:, mask], roles=roles[mask])
    h[:, ~mask] = np.nan
    np.testing.assert_array_equal(kernel.extremes(h, mask, roles), expected)


@given(width=some_width, seed=seeds)
def test_half_precision_gives_the_bits_of_its_float32(width: int, seed: int) -> None:
    """float16 and bfloat16 states, and float16 directions, equal their widened values."""
    directions, layers = watched(width, seed=seed)
    half = directions.astype(np.float16)
    kernel, narrow = (
        DirectionsKernel(half.astype(np.float32), layers),
        DirectionsKernel(half, layers),
    )
    h = states(width, 8, seed=seed)
    for stored in (h.astype(np.float16), h.astype(ml_dtypes.bfloat16)):
        expected = kernel.extremes(stored.astype(np.float32))
        np.testing.assert_array_equal(kernel.extremes(stored), expected)
        np.testing.assert_array_equal(narrow.extremes(stored), expected)


@given(width=some_width, seed=seeds, power=st.integers(-20, 20))
def test_a_cosine_knows_no_length(width: int, seed: int, power: int) -> None:
    """States times a power of two have the same cosines to the bit."""
    kernel = DirectionsKernel(*watched(width, seed=seed))
    h = states(width, 7, seed=seed)
    np.testing.assert_array_equal(kernel.extremes(h * np.float32(2.0**power)), kernel.extremes(h))


def test_a_state_along_a_direction_has_cosine_one() -> None:
    """And minus one against it."""
    directions, layers = watched(33)
    h = states(33, 2)
    h[layers[0]] = directions[0], -directions[0]
    found = DirectionsKernel(directions, layers).extremes(h)
    np.testing.assert_allclose(found[1, :, 0], [-1, 1], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "zero", "tiny", "huge"])
def test_a_state_without_a_direction_is_never_lost(value: Any) -> None:
    """Not finite, of length zero, or beyond what float32 squares: NaN, which later tokens keep."""
    kernel = DirectionsKernel(*watched(33))
    h = states(33, 9)
    layer = kernel.layers[1]
    scale = {"zero": 0, "tiny": 1e-30, "huge": 1e30}
    if value in scale:
        h[layer, 4] *= np.float32(scale[value])
    else:
        h[layer, 4, 7] = value
    found = kernel.extremes(h)
    of_layer = np.asarray(watched(33)[1]) == layer
    assert np.isnan(found[1][:, of_layer]).all()
    assert np.isfinite(found[1][:, ~of_layer]).all()
    kernel.extremes(states(33, 3), into=found)
    assert np.isnan(found[1][:, of_layer]).all()
    score, _ = _ranges(len(of_layer)).score(found[None])
    assert np.isnan(score).all()


def _ranges(count: int, seed: int = 0) -> RangesKernel:
    low, high, scale = _limits(count, seed)
    return RangesKernel(low, high, scale)


def _limits(count: int, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng([3, seed])
    low, high = np.sort(rng.uniform(-1, 1, (2, 4, count)).astype(np.float32), axis=0)
    return low, high, rng.uniform(0.01, 1, (4, count)).astype(np.float32)


@given(seed=seeds, tokens=st.integers(1, 9))
def test_the_excess_agrees_with_the_oracle(seed: int, tokens: int) -> None:
    """Scores are the oracle's, and ``worst`` says where the largest excess lies."""
    directions, layers = watched(33, seed=seed)
    kernel = DirectionsKernel(directions, layers)
    limits = _limits(kernel.count, seed)
    rows = [
        kernel.extremes(states(33, tokens, seed=seed + i), roles=_roles(tokens, i))
        for i in range(3)
    ]
    scores, worst = RangesKernel(*limits).score(np.stack(rows))
    for row, score, place in zip(rows, scores, worst, strict=True):
        wide = [limit.astype(np.float64) for limit in limits]
        assert score == reference.excess(row.astype(np.float64), *wide)
        role, k = divmod(int(place), kernel.count)
        low, high, scale = (limit[role, k] for limit in wide)
        assert score == max(low - row[role, 0, k], row[role, 1, k] - high) / scale


@given(seed=seeds, tokens=st.integers(1, 9))
def test_the_published_rule_is_an_excess_of_one_hundredth(seed: int, tokens: int) -> None:
    """With scale 1, more than EPS of excess is what the published intervals flag."""
    directions, layers = watched(33, seed=seed)
    kernel = DirectionsKernel(directions, layers)
    seen, found = (
        kernel.extremes(states(33, n, seed=seed + n)).astype(np.float64) for n in (200, tokens)
    )
    low, high = np.zeros((2, 4, kernel.count))
    low[1], high[1] = seen[1]
    ((score,), _) = RangesKernel(low, high, np.ones_like(low)).score(found[None])
    assert (score > reference.EPS) == reference.flagged(found[1], low[1], high[1])


def test_no_token_is_no_score() -> None:
    """Extremes of no token score NaN: there is nothing to say that all is well."""
    kernel = DirectionsKernel(*watched(33))
    scores, worst = _ranges(kernel.count).score(kernel.untouched()[None])
    assert np.isnan(scores).all()
    assert worst.tolist() == [-1]
    np.testing.assert_array_equal(kernel.extremes(states(33, 3)[:, :0]), kernel.untouched())


@pytest.mark.shared
def test_golden_vectors(shared: Path) -> None:
    """Directions, extremes and every flag of the published stream and test are reproduced."""
    path = shared / "golden" / "weightwatch_golden.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    layers = [index for index, rows in enumerate(golden["us"]) for _ in rows]
    directions = np.concatenate([rows for rows in golden["us"] if rows]).astype(np.float32)
    kernel = DirectionsKernel(directions, np.array(layers))

    def extremes(conversation: Any) -> Array:  # (tokens, states, width)
        return kernel.extremes(np.asarray(conversation, np.float32).swapaxes(0, 1))

    def flagged(found: Array, seen: Array) -> bool:
        ranges = RangesKernel(seen[:, 0], seen[:, 1], np.ones_like(seen[:, 0]))
        return not ranges.score(found[None])[0][0] <= reference.EPS

    seen = np.empty((4, 2, kernel.count), np.float32)
    seen[:, 0], seen[:, 1] = 2, -2  # nothing yet: every cosine is far outside
    stream = []
    for conversation in golden["cal"]:  # tested first, widened then
        found = extremes(conversation)
        stream.append(flagged(found, seen))
        seen[1, 0], seen[1, 1] = np.minimum(seen, found)[1, 0], np.maximum(seen, found)[1, 1]
    assert stream == golden["stream_flags"]
    for name, value in (("minima", seen[1, 0]), ("maxima", seen[1, 1])):
        expected = np.concatenate([rows for rows in golden[name] if rows])
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerances.GOLDEN)
    assert [flagged(extremes(item), seen) for item in golden["test"]] == golden["test_flags"]


@pytest.mark.parametrize("name", sorted(bad_layouts().keys() - {"too few layers", "too narrow"}))
def test_states_that_cannot_be_read_are_named(name: str) -> None:
    """Each wrong layout is refused with the layer, what was found and what to do."""
    layers, words = bad_layouts()[name]
    kernel = DirectionsKernel(watched(33)[0], np.sort(np.arange(len(watched(33)[0])) % (DEPTH + 1)))
    with pytest.raises(InputError, match=words):
        kernel.extremes(layers)


def test_what_does_not_fit_is_named() -> None:
    """States of another model, roles, masks and accumulators that do not fit the tokens."""
    kernel = DirectionsKernel(*watched(33))
    h = states(33, 4)
    for call, words in (
        (lambda: kernel.extremes(h[:2]), "found 2 states, expected at least those numbered 1, 3"),
        (lambda: kernel.extremes({1: h[1]}), "found 1 states"),
        (lambda: kernel.extremes(states(34, 4)), "found states of width 34, expected 33"),
        (
            lambda: kernel.extremes(h, np.ones(3, bool)),
            r"mask: found shape \(3,\), expected \(4,\)",
        ),
        (lambda: kernel.extremes(h, roles=np.ones(5, int)), r"roles: found shape \(5,\)"),
        (lambda: kernel.extremes(h, roles=np.full(4, 4)), "roles: found int64 from 0 to 4"),
        (lambda: kernel.extremes(h, roles=np.ones(4)), "roles: found float64"),
        (lambda: kernel.extremes(h, into=np.zeros((4, 2, 3), np.float32)), "start with untouched"),
        (lambda: _ranges(7).score(kernel.untouched()[None]), "extremes: found shape"),
    ):
        with pytest.raises(InputError, match=words):
            call()


DIRECTION_FAULTS: dict[str, tuple[Any, Any, str]] = {
    "none": (np.zeros((0, 33), np.float32), np.zeros(0, int), "found shape .0, 33., expected"),
    "float64": (np.zeros((2, 33)), [1, 1], "directions: found dtype float64"),
    "not finite": (np.full((2, 33), np.nan, np.float32), [1, 1], "a value that is not finite"),
    "too few layers": (np.zeros((2, 33), np.float32), [1], r"layers: found shape \(1,\)"),
    "descending": (np.zeros((2, 33), np.float32), [2, 1], "expected ascending"),
    "negative": (np.zeros((2, 33), np.float32), [-1, 1], "expected ascending"),
}


@pytest.mark.parametrize("name", DIRECTION_FAULTS)
def test_directions_are_checked(name: str) -> None:
    """Shapes, dtypes and indices that do not fit together are refused when a kernel is made."""
    directions, layers, words = DIRECTION_FAULTS[name]
    with pytest.raises(InputError, match=words):
        DirectionsKernel(directions, np.asarray(layers))


def test_ranges_are_checked() -> None:
    """Every fault of the ranges is listed."""
    low, high, scale = _limits(5)
    with pytest.raises(InputError, match=r"(?s)high: found a value.*scale: found a value that is"):
        RangesKernel(low, high * np.inf, -scale)


def test_threads_share_a_kernel() -> None:
    """Many threads with one kernel, interrupted often, get the bits that one thread gets."""
    kernel = DirectionsKernel(*watched(65))
    inputs = [states(65, rows, seed=rows) for rows in range(1, 25)]
    expected = [kernel.extremes(h).tobytes() for h in inputs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda h: kernel.extremes(h).tobytes(), inputs * 20))
    finally:
        sys.setswitchinterval(interval)
    assert results == expected * 20


def test_flush_to_zero_of_the_caller_changes_no_bit() -> None:
    """A thread in which another library turned on flush-to-zero reads the same."""
    torch = pytest.importorskip("torch")
    kernel = DirectionsKernel(*watched(65))
    h = states(65, 3)
    h[:, :, ::2] *= np.float32(1e-40)
    expected = kernel.extremes(h)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no flush-to-zero mode")
    try:
        np.testing.assert_array_equal(kernel.extremes(h), expected)
    finally:
        torch.set_flush_denormal(False)
