"""The decode graph with its cache gives the states of the whole text, in whatever pieces."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.runtime import BundleError, Guard, InputError
from layerguard.runtime.bundle.manifest import GraphCard, OutputCard
from layerguard.runtime.streaming.cache import KeyValueCache
from layerguard.runtime.streaming.decoder import Decoder, Step
from layerguard.runtime.streaming.track import Track
from layerguard.runtime.types import Array, Tap
from tests.tiny import LAYERS, WIDTH
from tests.tiny_decoder import vocabulary

IDS = np.random.default_rng(5).integers(4, 400, 90).tolist()
ROUNDING = 2e-6
"""Of states of size one that are summed in another order, block after block."""


@pytest.fixture(scope="module")
def decoder(guard: Guard) -> Decoder:
    """The decode graph of the toy bundle."""
    return guard.streams.means.decoder


def whole(guard: Guard, ids: Sequence[int]) -> list[Array]:
    """The states of a text by the score graph."""
    outputs = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    return [state[0] for state in guard.backbone.session.run(outputs, feeds)]


def states(steps: Sequence[Step]) -> list[Array]:
    """Steps' states, one after the other."""
    return [np.concatenate(layer) for layer in zip(*(s.states for s in steps), strict=True)]


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_pieces_give_the_states_of_the_whole(
    guard: Guard, decoder: Decoder, sizes: list[int]
) -> None:
    """Prefill, chunks and single tokens agree with one pass of the score graph."""
    ids, cache, steps = (IDS * 4)[: sum(sizes)], decoder.new_cache(), []
    for size in sizes:
        start = cache.length
        steps.append(decoder.advance(ids[start : start + size], cache))
    for found, expected in zip(states(steps), whole(guard, ids), strict=True):
        np.testing.assert_allclose(found, expected, atol=ROUNDING * len(ids))
    assert cache.length == len(ids) <= cache.capacity


def test_what_was_taken_back_leaves_no_trace(decoder: Decoder) -> None:
    """A cache cut and continued otherwise gives what a fresh one gives, even after NaN."""
    cache = decoder.new_cache()
    decoder.advance(IDS[:20], cache)
    decoder.advance(IDS[20:40], cache)
    for buffer in cache.feeds.values():
        buffer[:, :, 25:40] = np.nan
    cache.truncate(25)
    cache.truncate(20)
    again = decoder.advance(IDS[50:60], cache)
    fresh = decoder.new_cache()
    decoder.advance(IDS[:20], fresh)
    expected = decoder.advance(IDS[50:60], fresh)
    for found, wanted in zip(again.states, expected.states, strict=True):
        np.testing.assert_allclose(found, wanted, atol=ROUNDING * 60)


def test_forks_share_nothing(decoder: Decoder) -> None:
    """What is read into a fork is not in the original, nor the other way round."""
    cache = decoder.new_cache()
    decoder.advance(IDS[:9], cache)
    fork = cache.fork()
    first, second = decoder.advance(IDS[9:12], cache), decoder.advance(IDS[30:33], fork)
    assert cache.length == fork.length == 12
    assert not np.array_equal(first.states[-1], second.states[-1])
    np.testing.assert_array_equal(
        decoder.advance([7], cache).states[-1].shape, decoder.advance([7], fork).states[-1].shape
    )


def test_the_cache_grows_by_a_share(decoder: Decoder) -> None:
    """Room for n tokens is at most an eighth and a step more, and the copies stay few."""
    cache, capacities = decoder.new_cache(), set()
    part = [np.ones((1, *b.shape[1:2], 1, b.shape[3]), b.dtype) for b in cache.feeds.values()]
    for length in range(1, 3000):
        cache.append(part)
        capacities.add(cache.capacity)
        assert length <= cache.capacity <= length * 9 / 8 + 64
    assert len(capacities) < 40
    assert cache.nbytes == sum(buffer.nbytes for buffer in cache.feeds.values())


def test_half_precision_caches() -> None:
    """A cache is of the dtype that the graph takes, and costs what that costs."""
    layout = {name: (2, 4, np.dtype(np.float16)) for name in ("past_key_00", "past_value_00")}
    cache = KeyValueCache(layout)
    cache.append([np.ones((1, 2, 3, 4), np.float16)] * 2)
    assert {buffer.dtype for buffer in cache.feeds.values()} == {np.dtype(np.float16)}
    assert cache.nbytes == 2 * cache.capacity * 2 * 4 * 2
    np.testing.assert_array_equal(cache.mask(2)[0, :4], [1, 1, 1, 0])
    assert cache.mask(2)[0, cache.capacity :].tolist() == [1, 1]


def test_steering_takes_a_direction_out(decoder: Decoder) -> None:
    """Zero rows change no bit; a direction is gone from its block's output, and what follows."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)
    steering = np.zeros((LAYERS, 2, WIDTH), np.float32)
    plain = decoder.advance(IDS[:9], decoder.new_cache(), want_logits=True)
    inert = decoder.advance(
        IDS[:9], decoder.new_cache(), steering=steering[:, :1], want_logits=True
    )
    np.testing.assert_array_equal(plain.logits, inert.logits)
    steering[1, 1] = direction
    steered = decoder.advance(IDS[:9], decoder.new_cache(), steering=steering)
    np.testing.assert_array_equal(steered.states[1], plain.states[1])
    lengths = np.linalg.norm(steered.states[2], axis=1)
    assert (np.abs(steered.states[2] @ direction) <= 1e-4 * lengths).all()
    assert not np.array_equal(steered.states[3], plain.states[3])


@pytest.mark.parametrize("ids", [[], [-1], [3, 10**6]])
def test_ids_outside_the_vocabulary(decoder: Decoder, ids: list[int]) -> None:
    """They are refused by value, and the cache stays as it was."""
    cache = decoder.new_cache()
    with pytest.raises(InputError, match=rf"token ids: .*from 0 to {vocabulary() - 1}"):
        decoder.advance(ids, cache)
    assert cache.length == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: {"outputs": card.outputs[1:]}, "no state output of layer 0"),
        (lambda card: {"inputs": (*card.inputs, "gate")}, "has no input gate"),
        (lambda card: {"outputs": (*card.outputs, OutputCard("x", "logits", 0))}, "no output x"),
    ],
)
def test_a_decode_graph_that_breaks_its_promise(
    guard: Guard, change: Callable[[GraphCard], dict[str, Any]], words: str
) -> None:
    """What the manifest promises and the graph lacks is named."""
    manifest = guard.bundle.manifest
    card = replace(manifest.graphs["decode"], **change(manifest.graphs["decode"]))
    bundle = replace(guard.bundle, manifest=replace(manifest, graphs={"decode": card}))
    with pytest.raises(BundleError, match=words):
        Decoder(bundle)


def test_a_bundle_without_a_decode_graph(encoder: Guard) -> None:
    """The error says how to get one."""
    with pytest.raises(InputError, match=r"has no decode graph; expected .*: export a decoder"):
        Decoder(encoder.bundle)


@settings(max_examples=25)
@given(
    moves=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_track_is_where_its_ids_are(
    guard: Guard, decoder: Decoder, moves: list[tuple[int, int]], seed: int
) -> None:
    """Whatever was taken back and read instead, the pools are those of the ids that stand."""
    taps = [
        Tap("content", "mean"),
        Tap("content", "last"),
        guard.streams.detectors["weightwatch"].tap,
    ]
    rng, ids = np.random.default_rng(seed), IDS[:3]
    track = Track(decoder, taps)
    track.replace(0, ids)
    for back, ahead in moves:
        start = max(0, len(ids) - back)
        ids = [*ids[:start], *rng.integers(4, 400, ahead).tolist()] or IDS[:1]
        fork = track.fork()
        track.replace(0, ids)
        assert track.ids == ids
        fresh = Track(decoder, taps)
        fresh.extend(ids)
        for tap in taps:
            for found, expected in zip(track.pools.of(tap), fresh.pools.of(tap), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-4)
        fork.extend(IDS[:2])
        assert fork.ids[-2:] == IDS[:2]
        assert track.ids == ids
