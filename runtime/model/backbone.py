"""Runs the exported graph: from requests to the pooled states that detectors read.

Calibration and serving both use this module, so a threshold is fitted on the same numbers that the
device computes in service.
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
from layerguard.runtime.text.distinct_rows import DistinctRows, Row
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import Ids, TokenReader
from layerguard.runtime.types import Array, Group, Tap, TokenSource

_INPUTS = ("input_ids", "attention_mask")
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))
_MAX_ROWS = 32
_MAX_BATCH_TOKENS = 8_192
"""Most tokens in one run of the graph, padding included. Bounds memory for any input."""

_MAX_STATE_BYTES = 256 << 20
"""Most bytes of token states in one run, if a detector reads them. A single row may exceed it."""

"""Token ids, and the role of each token if it is known."""


@dataclass(frozen=True, slots=True)
class PooledStates:
    """Pooled states of some requests. Each window has one row; equal windows share a row.

    Attributes:
        layers: for each group of taps, L + 1 arrays [rows, hidden], or one array: of extremes
            [rows, 4, 2, K], of windows and of added lengths [rows, K].
        rows: for each source, the row numbers of the windows of each request.
        tokens: for each request, the number of tokens of its longest view before truncation.
        truncated: for each request, whether a part of it was not read.
        timings_ms: milliseconds spent on ``tokenize`` and ``graph``.
    """

    layers: Mapping[Group, Layers]
    rows: Mapping[TokenSource, Sequence[tuple[int, ...]]]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    timings_ms: Mapping[str, float]

    def of(self, tap: Tap) -> tuple[Layers, Array]:
        """What a tap reads, one row per window, and the request number of each window."""
        rows = self.rows[tap.source]
        order = [row for windows in rows for row in windows]
        owner = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        layers = self.layers[tap.group]
        if order != list(range(len(layers[0]))):
            layers = tuple(layer[order] for layer in layers)
        return layers, owner


class Backbone:
    """Tokenizer and score graph of a bundle. Thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        device: Device = "cpu",
        threads: int = 0,
        weights: Weights = "packed",
    ) -> None:
        """Open the bundle's score graph; see ``Session`` for the arguments and errors.

        Raises:
            InputError: ``weights`` has another value, or is ``mapped`` on a device other than the
                CPU.
        """
        if weights not in get_args(Weights):
            raise InputError(f"weights {weights!r}; expected packed or mapped")
        if weights == "mapped" and device != "cpu":
            raise InputError(
                f"found weights 'mapped' on device {device!r}, which holds its own copy of the "
                "weights; expected 'packed'"
            )
        self._graph = bundle.manifest.graphs["score"]
        # int8 activations share one scale per run, so a row's scores would depend on other rows
        self._most_rows = 1 if bundle.manifest.model.dtype == "int8" else _MAX_ROWS
        self._pad = bundle.manifest.text.pad_token_id
        self._width = bundle.manifest.model.width
        self._folder = bundle.path
        self._plans: dict[frozenset[Tap], Plan] = {}
        self._planner = Planner(self._graph, bundle.manifest.model.layers)
        self._tokens = TokenReader(bundle)
        opened = partial(bundle.opened, self._graph.file)
        mapped = MappedWeights() if weights == "mapped" else None
        self.session = Session(bundle.path / self._graph.file, device, threads, opened, mapped)
        faults = _graph_faults(self._graph, self.session)
        if faults:
            raise BundleError(bundle.path, faults)

    @property
    def reader(self) -> TokenReader:
        """The tokenizer with the bundle's rules."""
        return self._tokens

    def read(self, requests: Sequence[Request], taps: Collection[Tap]) -> PooledStates:
        """Run the graph over the requests' windows and pool the states for the taps.

        Raises:
            InputError: the chat template refuses a request's messages, or a request is beyond the
                limits.
        """
        start = time.perf_counter()
        sources = {tap.source for tap in taps}
        tokenized_requests = [self._tokens.read_sources(one, sources) for one in requests]
        distinct = DistinctRows()
        rows: dict[TokenSource, list[tuple[int, ...]]] = {source: [] for source in sources}
        for by_source in tokenized_requests:
            for source, view in by_source.items():
                roles = view.roles or [None] * len(view.windows)
                rows[source].append(tuple(map(distinct.index, view.windows, roles)))
        tokenized = time.perf_counter()
        layers = self._run(distinct.rows, self._plan(frozenset(taps)))
        done = time.perf_counter()
        return PooledStates(
            layers=layers,
            rows=rows,
            tokens=tuple(
                [max([v.tokens for v in by_source.values()]) for by_source in tokenized_requests]
            ),
            truncated=tuple(
                [any(v.truncated for v in by_source.values()) for by_source in tokenized_requests]
            ),
            timings_ms={"tokenize": (tokenized - start) * 1e3, "graph": (done - tokenized) * 1e3},
        )

    def _plan(self, taps: frozenset[Tap]) -> Plan:
        """The outputs that the taps need; computed once for each set of taps."""
        if taps not in self._plans:
            try:
                self._plans[taps] = self._planner.plan(taps)
            except InputError as error:
                raise BundleError(self._folder, [str(error)]) from error
        return self._plans[taps]

    def _run(self, rows: Sequence[Row], plan: Plan) -> dict[Group, Layers]:
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

    def _run_batch(self, rows: Sequence[Row], plan: Plan) -> dict[Group, Layers]:
        """Run the graph once over padded rows."""
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
        """Check shapes and dtypes of the graph's outputs against the manifest."""
        by_token, by_text = (*batch, self._width), (batch[0], self._width)
        faults = []
        for name, array in zip(names, values, strict=True):
            expected: tuple[int, ...] = by_text
            if name in self._planner.token_outputs:
                expected = by_token
            elif name in self._planner.added_outputs:
                expected = batch
            if array.shape != expected or array.dtype not in _DTYPES:
                faults.append(
                    f"{self._graph.file} gave {name!r} as {array.dtype} {list(array.shape)}; "
                    f"expected float32 or float16 {list(expected)}: export it again"
                )
        if faults:
            raise BundleError(self._folder, faults)


def _batches(rows: Sequence[Ids], most: int, most_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, with bounded rows and padded tokens per batch."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        padded = (len(batch) + 1) * len(rows[i])
        if batch and (len(batch) == most or padded > most_tokens):
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _graph_faults(graph: GraphCard, session: Session) -> list[str]:
    """Inputs and outputs that the manifest lists and the graph lacks, and unknown inputs."""
    faults = [
        f"{graph.file} takes an input {name!r}; expected only {' and '.join(_INPUTS)}"
        for name in session.inputs
        if name not in _INPUTS
    ]
    for what, expected, actual in (
        ("input", {*graph.inputs, *_INPUTS}, set(session.inputs)),
        ("output", {card.name for card in graph.outputs}, set(session.outputs)),
    ):
        missing = sorted(expected - actual)
        if missing:
            faults.append(f"{graph.file} has no {what} {', '.join(missing)}; export it again")
    return faults
