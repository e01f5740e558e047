"""The exported transformer at work: from requests to the pooled states that detectors read.

Calibration and serving both come through here, so a threshold is fitted on the very numbers that
the device will see.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import GraphCard
from layerguard.runtime.detectors.kind import POOLS
from layerguard.runtime.errors import BundleError
from layerguard.runtime.session import Device, Session
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import Ids, TokenReader
from layerguard.runtime.types import Array, Pooling, Tap, View

Layers = tuple[Array, ...]
"""L + 1 arrays [rows, hidden], float32."""

_INPUTS = ("input_ids", "attention_mask")
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))
_MAX_ROWS = 32
_MAX_BATCH_TOKENS = 8_192
"""Of one run of the graph, padding included: bounds memory whatever the caller sends."""


@dataclass(frozen=True, slots=True)
class PooledStates:
    """Pooled states of some requests; one row a window, equal windows share a row.

    Attributes:
        layers: by (pooling, semantics), L + 1 arrays [rows, hidden].
        rows: by view, the row numbers of each request's windows.
        tokens: of each request, in its longest view, before any were left out.
        truncated: whether part of the request was not read.
        timings_ms: milliseconds spent on ``tokenize`` and ``graph``.
    """

    layers: Mapping[tuple[Pooling, str], Layers]
    rows: Mapping[View, Sequence[tuple[int, ...]]]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    timings_ms: Mapping[str, float]

    def of(self, tap: Tap) -> tuple[Layers, Array]:
        """What a tap reads: L + 1 arrays [windows, hidden], and each window's request number."""
        rows = self.rows[tap.view]
        order = [row for windows in rows for row in windows]
        owner = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        layers = self.layers[tap.pooling, tap.semantics]
        if order != list(range(len(layers[0]))):
            layers = tuple(layer[order] for layer in layers)
        return layers, owner


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which outputs to ask the graph for, and how to pick each group of L + 1 from them."""

    outputs: list[str]
    layers: Mapping[tuple[Pooling, str], Callable[[Sequence[Array]], Layers]]


class Backbone:
    """Tokenizer and graph of a bundle; thread-safe."""

    def __init__(self, bundle: Bundle, device: Device = "cpu", threads: int = 0) -> None:
        """Open the bundle's score graph; see ``Session`` for the arguments and errors."""
        self._graph = bundle.manifest.graphs["score"]
        # int8 activations share one scale a run: alone, a row's scores cannot depend on its company
        self._most_rows = 1 if bundle.manifest.model.dtype == "int8" else _MAX_ROWS
        self._pad = bundle.manifest.text.pad_token_id
        self._width = bundle.manifest.model.width
        self._folder = bundle.path
        self._plans: dict[frozenset[Tap], _Plan] = {}
        self._names = _output_names(self._graph, bundle.manifest.model.layers)
        self._tokens = TokenReader(bundle)
        self.session = Session(bundle.path / self._graph.file, device, threads)
        faults = _graph_faults(self._graph, self.session)
        if faults:
            raise BundleError(bundle.path, faults)

    def read(self, requests: Sequence[Request], taps: Collection[Tap]) -> PooledStates:
        """Run the graph over the requests' windows and pool what the taps need.

        Raises:
            InputError: the chat template refuses a request's messages.
        """
        start = time.perf_counter()
        views = {tap.view for tap in taps}
        read = [self._tokens.read(request, views) for request in requests]
        row_of: dict[Ids, int] = {}
        rows: dict[View, list[tuple[int, ...]]] = {view: [] for view in views}
        for item in read:
            for view, found in item.items():
                rows[view].append(
                    tuple([row_of.setdefault(ids, len(row_of)) for ids in found.windows])
                )
        tokenized = time.perf_counter()
        layers = self._run(list(row_of), self._plan(frozenset(taps)))
        done = time.perf_counter()
        return PooledStates(
            layers=layers,
            rows=rows,
            tokens=tuple([max([found.tokens for found in item.values()]) for item in read]),
            truncated=tuple([any(found.truncated for found in item.values()) for item in read]),
            timings_ms={"tokenize": (tokenized - start) * 1e3, "graph": (done - tokenized) * 1e3},
        )

    def _plan(self, taps: frozenset[Tap]) -> _Plan:
        """Which outputs the taps need; worked out once for each set of taps."""
        if taps not in self._plans:
            groups = {(t.pooling, t.semantics): self._names[t.pooling, t.semantics] for t in taps}
            outputs = list(dict.fromkeys(name for names in groups.values() for name in names))
            places = {key: list(map(outputs.index, names)) for key, names in groups.items()}
            self._plans[taps] = _Plan(
                outputs, {key: itemgetter(*found) for key, found in places.items()}
            )
        return self._plans[taps]

    def _run(self, rows: Sequence[Ids], plan: _Plan) -> dict[tuple[Pooling, str], Layers]:
        if len(rows) == 1:
            return self._run_batch(rows, plan)
        batches = list(_batches(rows, self._most_rows))
        results = [self._run_batch([rows[i] for i in batch], plan) for batch in batches]
        if len(batches) == 1 and batches[0] == list(range(len(rows))):
            return results[0]
        order = np.argsort(np.concatenate([np.asarray(batch) for batch in batches]))
        return {
            key: tuple(
                np.concatenate(parts)[order]
                for parts in zip(*(result[key] for result in results), strict=True)
            )
            for key in plan.layers
        }

    def _run_batch(self, rows: Sequence[Ids], plan: _Plan) -> dict[tuple[Pooling, str], Layers]:
        """One run of the graph over padded rows."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._pad, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        values = self.session.run(plan.outputs, dict(zip(_INPUTS, (ids, mask), strict=True)))
        pooled = self._graph.mode == "pooled"
        self._check_outputs(plan.outputs, values, (*ids.shape[: 1 if pooled else 2], self._width))
        layers = {key: pick(values) for key, pick in plan.layers.items()}
        if pooled:
            return layers
        valid = mask.astype(bool)
        return {key: _pool(states, valid, key[0]) for key, states in layers.items()}

    def _check_outputs(
        self, names: Sequence[str], values: Sequence[Array], expected: tuple[int, ...]
    ) -> None:
        """Refuse a graph whose outputs are not what its manifest promises."""
        if all(value.shape == expected and value.dtype in _DTYPES for value in values):
            return
        faults = [
            f"{self._graph.file} gave {name!r} as {array.dtype} {list(array.shape)}; expected "
            f"float32 or float16 {list(expected)}: export it again"
            for name, array in zip(names, values, strict=True)
            if array.shape != expected or array.dtype not in _DTYPES
        ]
        raise BundleError(self._folder, faults)


def _output_names(graph: GraphCard, layers: int) -> dict[tuple[Pooling, str], list[str]]:
    """By (pooling, semantics): the names of the L + 1 outputs that it is made of."""
    cards: dict[tuple[str, int], str] = {
        (card.kind, card.layer): card.name for card in graph.outputs
    }
    names = {}
    for pooling in POOLS:
        kind, normed = (
            (pooling, f"final_norm_{pooling}")
            if graph.mode == "pooled"
            else ("state", "final_norm")
        )
        block = [cards[kind, layer] for layer in range(layers + 1)]
        names[pooling, "block"] = block
        # a model without a final norm ends in the same state either way
        names[pooling, "hf"] = [*block[:-1], cards.get((normed, layers), block[-1])]
    return names


def _batches(rows: Sequence[Ids], most: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, at most ``most`` rows, within the bound above."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        padded = (len(batch) + 1) * len(rows[i])
        if batch and (len(batch) == most or padded > _MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _pool(states: Sequence[Array], valid: Array, pooling: Pooling) -> Layers:
    """Pool L + 1 arrays [rows, tokens, hidden] to L + 1 arrays [rows, hidden]."""
    pooled = [POOLS[pooling]([state[i] for state in states], row) for i, row in enumerate(valid)]
    return tuple(np.stack(layer) for layer in zip(*pooled, strict=True))


def _graph_faults(graph: GraphCard, session: Session) -> list[str]:
    """Inputs and outputs that the manifest promises and the graph does not have."""
    faults = [
        f"{graph.file} takes an input {name!r}; this release gives {' and '.join(_INPUTS)} alone"
        for name in session.inputs
        if name not in _INPUTS
    ]
    for what, promised, found in (
        ("input", {*graph.inputs, *_INPUTS}, set(session.inputs)),
        ("output", {card.name for card in graph.outputs}, set(session.outputs)),
    ):
        missing = sorted(promised - found)
        if missing:
            faults.append(f"{graph.file} has no {what} {', '.join(missing)}; export it again")
    return faults
