"""The exported transformer at work: from requests to the pooled states that detectors read.

Calibration and serving both come through here, so a threshold is fitted on the very numbers that
the device will see.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import GraphCard
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.mapped import MappedWeights
from layerguard.runtime.model.plan import Layers, Plan, Planner
from layerguard.runtime.model.session import Device, Session, Weights
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import Ids, TokenReader
from layerguard.runtime.types import Array, Group, Source, Tap

_INPUTS = ("input_ids", "attention_mask")
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))
_MAX_ROWS = 32
_MAX_BATCH_TOKENS = 8_192
"""Of one run of the graph, padding included: bounds memory whatever the caller sends."""

_MAX_STATE_BYTES = 256 << 20
"""Of the token states that one run gives, where a detector reads them; one row may exceed it."""

_Row = tuple[Ids, bytes | None]
"""Token ids, and the role of each where it is known."""


@dataclass(frozen=True, slots=True)
class PooledStates:
    """Pooled states of some requests; one row a window, equal windows share a row.

    Attributes:
        layers: by group of taps, L + 1 arrays [rows, hidden], or one of extremes [rows, 4, 2, K].
        rows: by source, the row numbers of each request's windows.
        tokens: of each request, in its longest view, before any were left out.
        truncated: whether part of the request was not read.
        timings_ms: milliseconds spent on ``tokenize`` and ``graph``.
    """

    layers: Mapping[Group, Layers]
    rows: Mapping[Source, Sequence[tuple[int, ...]]]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    timings_ms: Mapping[str, float]

    def of(self, tap: Tap) -> tuple[Layers, Array]:
        """What a tap reads of each window, as ``layers``, and each window's request number."""
        rows = self.rows[tap.source]
        order = [row for windows in rows for row in windows]
        owner = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        layers = self.layers[tap.group]
        if order != list(range(len(layers[0]))):
            layers = tuple(layer[order] for layer in layers)
        return layers, owner


class Backbone:
    """Tokenizer and graph of a bundle; thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        device: Device = "cpu",
        threads: int = 0,
        weights: Weights = "packed",
    ) -> None:
        """Open the bundle's score graph; see ``Session`` for the arguments and errors.

        Raises:
            InputError: ``weights`` is neither, or mapped on another device than the CPU.
        """
        if weights not in get_args(Weights):
            raise InputError(f"weights {weights!r}; expected packed or mapped")
        if weights == "mapped" and device != "cpu":
            raise InputError(
                f"weights 'mapped' on device {device!r}, which holds its own copy of the weights; "
                "leave them packed"
            )
        self._graph = bundle.manifest.graphs["score"]
        # int8 activations share one scale a run: alone, a row's scores cannot depend on its company
        self._most_rows = 1 if bundle.manifest.model.dtype == "int8" else _MAX_ROWS
        self._pad = bundle.manifest.text.pad_token_id
        self._width = bundle.manifest.model.width
        self._folder = bundle.path
        self._plans: dict[frozenset[Tap], Plan] = {}
        self._planner = Planner(self._graph, bundle.manifest.model.layers)
        self._tokens = TokenReader(bundle)
        check = partial(bundle.check_unchanged, self._graph.file)
        mapped = MappedWeights() if weights == "mapped" else None
        self.session = Session(bundle.path / self._graph.file, device, threads, check, mapped)
        faults = _graph_faults(self._graph, self.session)
        if faults:
            raise BundleError(bundle.path, faults)

    @property
    def reader(self) -> TokenReader:
        """The tokenizer with the bundle's rules."""
        return self._tokens

    def read(self, requests: Sequence[Request], taps: Collection[Tap]) -> PooledStates:
        """Run the graph over the requests' windows and pool what the taps need.

        Raises:
            InputError: the chat template refuses a request's messages.
        """
        start = time.perf_counter()
        sources = {tap.source for tap in taps}
        read = [self._tokens.read_sources(request, sources) for request in requests]
        distinct = _Rows()
        rows: dict[Source, list[tuple[int, ...]]] = {source: [] for source in sources}
        for item in read:
            for source, found in item.items():
                roles = found.roles or [None] * len(found.windows)
                rows[source].append(tuple(map(distinct.place, found.windows, roles)))
        tokenized = time.perf_counter()
        layers = self._run(distinct.rows, self._plan(frozenset(taps)))
        done = time.perf_counter()
        return PooledStates(
            layers=layers,
            rows=rows,
            tokens=tuple([max([found.tokens for found in item.values()]) for item in read]),
            truncated=tuple([any(found.truncated for found in item.values()) for item in read]),
            timings_ms={"tokenize": (tokenized - start) * 1e3, "graph": (done - tokenized) * 1e3},
        )

    def _plan(self, taps: frozenset[Tap]) -> Plan:
        """Which outputs the taps need; worked out once for each set of taps."""
        if taps not in self._plans:
            try:
                self._plans[taps] = self._planner.plan(taps)
            except InputError as error:
                raise BundleError(self._folder, [str(error)]) from error
        return self._plans[taps]

    def _run(self, rows: Sequence[_Row], plan: Plan) -> dict[Group, Layers]:
        if len(rows) == 1:
            return self._run_batch(rows, plan)
        bytes_a_token = plan.token_outputs * self._width * np.dtype(np.float32).itemsize
        most_tokens = min(_MAX_BATCH_TOKENS, _MAX_STATE_BYTES // max(1, bytes_a_token))
        batches = list(_batches([ids for ids, _ in rows], self._most_rows, most_tokens))
        results = [self._run_batch([rows[i] for i in batch], plan) for batch in batches]
        if len(batches) == 1 and batches[0] == list(range(len(rows))):
            return results[0]
        order = np.argsort(np.concatenate([np.asarray(batch) for batch in batches]))
        return {
            group: tuple(
                np.concatenate(parts)[order]
                for parts in zip(*(result[group] for result in results), strict=True)
            )
            for group in plan.groups
        }

    def _run_batch(self, rows: Sequence[_Row], plan: Plan) -> dict[Group, Layers]:
        """One run of the graph over padded rows."""
        longest = max([len(row) for row, _ in rows])
        ids = np.full((len(rows), longest), self._pad, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for i, (row, _) in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        values = self.session.run(plan.outputs, dict(zip(_INPUTS, (ids, mask), strict=True)))
        self._check_outputs(plan.outputs, values, ids.shape)
        return plan.reduce(values, mask.astype(bool), [roles for _, roles in rows])

    def _check_outputs(
        self, names: Sequence[str], values: Sequence[Array], batch: tuple[int, ...]
    ) -> None:
        """Refuse a graph whose outputs are not what its manifest promises."""
        by_token, by_text = (*batch, self._width), (batch[0], self._width)
        faults = []
        for name, array in zip(names, values, strict=True):
            expected = by_token if name in self._planner.token_outputs else by_text
            if array.shape != expected or array.dtype not in _DTYPES:
                faults.append(
                    f"{self._graph.file} gave {name!r} as {array.dtype} {list(array.shape)}; "
                    f"expected float32 or float16 {list(expected)}: export it again"
                )
        if faults:
            raise BundleError(self._folder, faults)


class _Rows:
    """The distinct rows of a batch: tokens, and whose they are where a detector asks for that."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self._places: dict[_Row, int] = {}

    def place(self, ids: Ids, roles: bytes | None) -> int:
        """The number of a row; one that knows no roles is any row of the same tokens."""
        place = self._places.get((ids, roles))
        if place is None and roles is not None:
            place = self._places.get((ids, None))
            if place is not None and self.rows[place][1] is not None:
                place = None  # the same tokens, and others' words
        if place is None:
            place = len(self.rows)
            self.rows.append((ids, roles))
            self._places.setdefault((ids, None), place)
        self.rows[place] = ids, roles or self.rows[place][1]
        self._places[ids, roles] = place
        return place


def _batches(rows: Sequence[Ids], most: int, most_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, each of at most so many rows and padded tokens."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        padded = (len(batch) + 1) * len(rows[i])
        if batch and (len(batch) == most or padded > most_tokens):
            yield batch
            batch = []
        batch.append(i)
    yield batch


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
