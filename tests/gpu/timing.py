"""What a guard costs beside its bare backbone, and what leaves the device."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.model.providers import open_graph
from layerguard.runtime.model.session import PROVIDERS, Device
from layerguard.runtime.streaming.decode_graph import DecodeGraph
from layerguard.runtime.types import Array
from tests.gpu.bundles import DEPTHS, SHAPES, path_of, text
from tests.gpu.stage import Setting

_TOKENS = (16, 128, 512)
_PAST = 256
_TRIALS, _SECONDS = 50, 5.0
_DEVICE_ID = 0


def shape(name: str, setting: Setting) -> Mapping[str, Any]:
    """``check`` and one streamed token of two depths, and what follows for the full depth."""
    found = {depth: _one(f"{name}-{depth}", setting) for depth in DEPTHS}
    low, high = DEPTHS
    full = SHAPES[name]["full_depth"]
    extrapolated = {}
    for key, value in found[high].items():
        if key.endswith("_ms"):
            a_block = (value - found[low][key]) / (high - low)
            extrapolated[key] = value + (full - high) * a_block
    note = f"measured with {low} and {high} blocks; extrapolated linearly to {full}"
    return {"measured": found, "extrapolated": extrapolated, "note": note}


def io_binding(name: str, setting: Setting) -> Mapping[str, Any]:
    """The pooled outputs by ``run`` and by binding, with the states left on the device.

    Raises:
        AssertionError: both ways do not give the same values.
    """
    bundle = Bundle.load(path_of(name, setting.bundles))
    session = _session(bundle.path / bundle.manifest.graphs["score"].file, setting.device)
    cards = bundle.manifest.graphs["score"].outputs
    pooled = [card.name for card in cards if card.kind in ("last", "mean")]
    states = [card.name for card in cards if card.kind == "state"]
    tokens = min(max(_TOKENS), bundle.manifest.text.max_tokens)
    feeds = _feeds(tokens, bundle.manifest.model.vocabulary)

    def bound(kept: Sequence[str]) -> list[Array]:
        binding = session.io_binding()
        for given, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, setting.device, _DEVICE_ID)
            binding.bind_ortvalue_input(given, value)
        for output in pooled:
            binding.bind_output(output, "cpu")
        for output in kept:  # they are computed whole, and stay where they are
            binding.bind_output(output, setting.device, _DEVICE_ID)
        session.run_with_iobinding(binding)
        values = dict(zip([*pooled, *kept], binding.get_outputs(), strict=True))
        return [values[output].numpy() for output in pooled]

    def plain(outputs: Sequence[str]) -> list[Array]:
        values: list[Array] = session.run(list(outputs), feeds)
        return values

    expected = plain(pooled)
    for mine, theirs in zip(bound(states), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    everything = plain([*pooled, *states])
    return {
        "tokens": tokens,
        "run_pooled_ms": _milliseconds(lambda: plain(pooled)),
        "bound_pooled_ms": _milliseconds(lambda: bound([])),
        "run_pooled_and_states_ms": _milliseconds(lambda: plain([*pooled, *states])),
        "bound_states_stay_ms": _milliseconds(lambda: bound(states)),
        "bytes_pooled": sum(value.nbytes for value in expected),
        "bytes_pooled_and_states": sum(value.nbytes for value in everything),
    }


def _one(name: str, setting: Setting) -> dict[str, float]:
    """Milliseconds of the guard and of the bare graphs."""
    guard = Guard.load(path_of(name, setting.bundles), device=setting.device)
    manifest = guard.bundle.manifest
    bare = _session(guard.bundle.path / manifest.graphs["score"].file, setting.device)
    kinds = {card.kind: card.name for card in manifest.graphs["score"].outputs}
    last = [kinds.get("final_norm_last", kinds["last"])]  # needs every block, and gives one row
    found = {}
    for tokens in _TOKENS:
        asked = text(tokens)
        row = guard.backbone.reader.tokenizer.encode(asked).ids
        feeds = {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)}
        found[f"check_{tokens}_ms"] = _milliseconds(lambda asked=asked: guard.check(asked))
        found[f"bare_{tokens}_ms"] = _milliseconds(lambda feeds=feeds: bare.run(last, feeds))
    decode_graph = DecodeGraph(guard.bundle, setting.device)
    cache = decode_graph.new_cache()
    decode_graph.advance([5] * min(_PAST, manifest.text.max_tokens // 2), cache)
    graph = _session(guard.bundle.path / manifest.graphs["decode"].file, setting.device)
    new = [card.name for card in manifest.graphs["decode"].outputs if card.kind in _CARRIED]
    steering = np.zeros((manifest.model.layers, 1, manifest.model.width), np.float32)
    feeds = {
        "input_ids": np.array([[5]]),
        "attention_mask": cache.mask(1),
        "steering": steering,
        **cache.feeds,
    }
    with guard.stream(prompt=text(cache.length)) as stream:
        found["stream_token_ms"] = _milliseconds(lambda: stream.push([5]))
    found["bare_token_ms"] = _milliseconds(lambda: graph.run(new, feeds))
    return found


_CARRIED = ("logits", "key", "value")
"""What a bare decoder gives for each token."""


def _feeds(tokens: int, vocabulary: int) -> dict[str, Array]:
    ids = np.random.default_rng(0).integers(0, vocabulary, (1, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _session(graph: Path, device: Device) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = open_graph(onnxruntime, graph, options, PROVIDERS[device])
    assert session.get_providers()[0] == PROVIDERS[device]
    return session


def _milliseconds(call: Callable[[], object]) -> float:
    """Median of up to 50 calls within five seconds, after two that warm up."""
    call()
    call()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _TRIALS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
