"""The decode graph with its cache gives the states of the whole text, for any chunking."""

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
from layerguard.runtime.streaming.decode_graph import DecodeGraph, Step
from layerguard.runtime.streaming.token_sequence import TokenSequence
from layerguard.runtime.types import Array, Tap
from tests.tiny import LAYERS, WIDTH
from tests.tiny_decoder import vocabulary

IDS = np.random.default_rng(5).integers(4, 400, 90).tolist()
ROUNDING = 2e-6
"""Of states of size one that are summed in another order, block after block."""


@pytest.fixture(scope="module")
def decode_graph(guard: Guard) -> DecodeGraph:
    """The decode graph of the toy bundle."""
    return guard.streams.resources.decode_graph


def whole(guard: Guard, ids: Sequence[int]) -> list[Array]:
    """The states of a text by the score graph."""
    outputs = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    return [state[0] for state in guard.backbone.session.run(outputs, feeds)]


def states(steps: Sequence[Step]) -> list[Array]:
    """The states of all steps, concatenated."""
    return [np.concatenate(layer) for layer in zip(*(s.states for s in steps), strict=True)]


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_pieces_give_the_states_of_the_whole(
    guard: Guard, decode_graph: DecodeGraph, sizes: list[int]
) -> None:
    """Prefill, chunks and single tokens agree with one pass of the score graph."""
    ids, cache, steps = (IDS * 4)[: sum(sizes)], decode_graph.new_cache(), []
    for size in sizes:
        start = cache.length
        steps.append(decode_graph.advance(ids[start : start + size], cache))
    for found, expected in zip(states(steps), whole(guard, ids), strict=True):
        np.testing.assert_allclose(found, expected, atol=ROUNDING * len(ids))
    assert cache.length == len(ids) <= cache.capacity


def test_what_was_taken_back_leaves_no_trace(decode_graph: DecodeGraph) -> None:
    """A truncated cache gives the same states as a new one, even after NaN."""
    cache = decode_graph.new_cache()
    decode_graph.advance(IDS[:20], cache)
    decode_graph.advance(IDS[20:40], cache)
    for buffer in cache.feeds.values():
        buffer[:, :, 25:40] = np.nan
    cache.truncate(25)
    cache.truncate(20)
    again = decode_graph.advance(IDS[50:60], cache)
    fresh = decode_graph.new_cache()
    decode_graph.advance(IDS[:20], fresh)
    expected = decode_graph.advance(IDS[50:60], fresh)
    for found, wanted in zip(again.states, expected.states, strict=True):
        np.testing.assert_allclose(found, wanted, atol=ROUNDING * 60)


def test_forks_share_nothing(decode_graph: DecodeGraph) -> None:
    """Tokens read in a fork do not change the original, and vice versa."""
    cache = decode_graph.new_cache()
    decode_graph.advance(IDS[:9], cache)
    fork = cache.fork()
    first, second = decode_graph.advance(IDS[9:12], cache), decode_graph.advance(IDS[30:33], fork)
    assert cache.length == fork.length == 12
    assert not np.array_equal(first.states[-1], second.states[-1])
    np.testing.assert_array_equal(
        decode_graph.advance([7], cache).states[-1].shape,
        decode_graph.advance([7], fork).states[-1].shape,
    )


def test_the_cache_grows_by_a_share(decode_graph: DecodeGraph) -> None:
    """Spare capacity is at most an eighth and a step, and resizing is rare."""
    cache, capacities = decode_graph.new_cache(), set()
    part = [np.ones((1, *b.shape[1:2], 1, b.shape[3]), b.dtype) for b in cache.feeds.values()]
    for length in range(1, 3000):
        cache.append(part)
        capacities.add(cache.capacity)
        assert length <= cache.capacity <= length * 9 / 8 + 64
    assert len(capacities) < 40
    assert cache.nbytes == sum(buffer.nbytes for buffer in cache.feeds.values())


def test_half_precision_caches() -> None:
    """The cache has the dtype of the graph's inputs."""
    layout = {name: (2, 4, np.dtype(np.float16)) for name in ("past_key_00", "past_value_00")}
    cache = KeyValueCache(layout)
    cache.append([np.ones((1, 2, 3, 4), np.float16)] * 2)
    assert {buffer.dtype for buffer in cache.feeds.values()} == {np.dtype(np.float16)}
    assert cache.nbytes == 2 * cache.capacity * 2 * 4 * 2
    np.testing.assert_array_equal(cache.mask(2)[0, :4], [1, 1, 1, 0])
    assert cache.mask(2)[0, cache.capacity :].tolist() == [1, 1]


def test_steering_takes_a_direction_out(decode_graph: DecodeGraph) -> None:
    """Zero rows change nothing; a direction is removed from its block's output."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH)
    direction /= np.linalg.norm(direction)
    steering = np.zeros((LAYERS, 2, WIDTH), np.float32)
    plain = decode_graph.advance(IDS[:9], decode_graph.new_cache(), want_logits=True)
    inert = decode_graph.advance(
        IDS[:9], decode_graph.new_cache(), steering=steering[:, :1], want_logits=True
    )
    np.testing.assert_array_equal(plain.logits, inert.logits)
    steering[1, 1] = direction
    steered = decode_graph.advance(IDS[:9], decode_graph.new_cache(), steering=steering)
    np.testing.assert_array_equal(steered.states[1], plain.states[1])
    lengths = np.linalg.norm(steered.states[2], axis=1)
    assert (np.abs(steered.states[2] @ direction) <= 1e-4 * lengths).all()
    assert not np.array_equal(steered.states[3], plain.states[3])


@pytest.mark.parametrize("ids", [[], [-1], [3, 10**6]])
def test_ids_outside_the_vocabulary(decode_graph: DecodeGraph, ids: list[int]) -> None:
    """Wrong ids are named, and the cache is unchanged."""
    cache = decode_graph.new_cache()
    with pytest.raises(InputError, match=rf"token ids: .*from 0 to {vocabulary() - 1}"):
        decode_graph.advance(ids, cache)
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
    """Inputs and outputs of the manifest that the graph lacks are named."""
    manifest = guard.bundle.manifest
    card = replace(manifest.graphs["decode"], **change(manifest.graphs["decode"]))
    bundle = replace(guard.bundle, manifest=replace(manifest, graphs={"decode": card}))
    with pytest.raises(BundleError, match=words):
        DecodeGraph(bundle)


def test_a_bundle_without_a_decode_graph(encoder: Guard) -> None:
    """The error says how to get one."""
    with pytest.raises(InputError, match=r"has no decode graph; expected .*: export a decoder"):
        DecodeGraph(encoder.bundle)


@settings(max_examples=25)
@given(
    moves=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_sequence_has_the_pools_of_its_ids(
    guard: Guard, decode_graph: DecodeGraph, moves: list[tuple[int, int]], seed: int
) -> None:
    """After any replacements, the pools are those of the current ids."""
    taps = [
        Tap("content", "mean"),
        Tap("content", "last"),
        guard.streams.detectors["weightwatch"].tap,
    ]
    rng, ids = np.random.default_rng(seed), IDS[:3]
    sequence = TokenSequence(decode_graph, taps)
    sequence.replace(0, ids)
    for back, ahead in moves:
        start = max(0, len(ids) - back)
        ids = [*ids[:start], *rng.integers(4, 400, ahead).tolist()] or IDS[:1]
        fork = sequence.fork()
        sequence.replace(0, ids)
        assert sequence.ids == ids
        fresh = TokenSequence(decode_graph, taps)
        fresh.extend(ids)
        for tap in taps:
            for found, expected in zip(
                sequence.pools.pooled(tap), fresh.pools.pooled(tap), strict=True
            ):
                np.testing.assert_allclose(found, expected, atol=1e-4)
        fork.extend(IDS[:2])
        assert fork.ids[-2:] == IDS[:2]
        assert sequence.ids == ids
