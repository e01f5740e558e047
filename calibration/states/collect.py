"""Record states of rows with the runtime and the graph that serves later.

The graph runs once over the rows for all readers: some store states for a fit, others only score.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Generic, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.recording import Recording
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Tap

_CHUNK = 128
"""Requests that are read at a time; the backbone sorts them into batches of similar length."""

Held = TypeVar("Held", Array, States)


@dataclass(frozen=True, slots=True)
class RecordedStates(Generic[Held]):
    """Pooled states, one entry for each window.

    Attributes:
        rows: the rows that could be read.
        states: float32 [windows, L + 1, hidden]; for extremes an array [windows, 1, 4, 2, K] or
            ``States`` [windows, 8, K].
        owner: int64 [windows], the index in ``rows`` of each window's row.
        faults: one message for each row that could not be read.
    """

    rows: tuple[Row, ...]
    states: Held
    owner: Array
    faults: tuple[str, ...]


class Reader(Protocol):
    """Reads the pooled states of rows during a pass of the graph."""

    @property
    def taps(self) -> Collection[Tap]:
        """The taps that it reads of every row."""

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """Read some rows; return one message for each row that it does not use."""


class Collector:
    """A ``Reader`` that stores the states of one tap.

    Attributes:
        rows: the rows whose states are stored.
    """

    def __init__(self, tap: Tap, recording: Recording) -> None:
        """Store the states in ``recording``, which the caller closes."""
        self.taps = (tap,)
        self._recording = recording
        self.rows: list[Row] = []
        self._owners: list[Array] = []

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """See ``Reader``; rows with non-finite states are not used."""
        (tap,) = self.taps
        layers, owner = pooled.of(tap)
        states = np.stack(layers, axis=1)
        good = np.ones(len(rows), dtype=bool)
        good[owner[_broken(states, tap).any(axis=tuple(range(1, states.ndim)))]] = False
        number = len(self.rows) + np.cumsum(good) - 1
        good_windows = good[owner]
        if good_windows.any():
            finite = states if good_windows.all() else states[good_windows]
            width = finite.shape[-1]
            self._recording.append(finite.reshape(len(finite), -1, width))
            self._owners.append(number[owner[good_windows]])
        self.rows += compress(rows, good)
        return [
            f"{row.place}: its states are not finite; export the model in float32"
            for row in compress(rows, ~good)
        ]

    def recorded(self, rows: int, faults: Sequence[str]) -> RecordedStates[States]:
        """The stored states of ``rows`` rows; ``faults`` are those of the pass.

        Raises:
            CalibrationError: no row could be read.
        """
        if not self.rows:
            raise CalibrationError(
                f"none of {rows} rows could be read; expected texts: {'; '.join(faults[:3])}"
            )
        owner = np.concatenate(self._owners)
        return RecordedStates(tuple(self.rows), self._recording, owner, tuple(faults))


def read_once(
    backbone: Backbone, rows: Sequence[Row], readers: Sequence[Reader], description: str
) -> tuple[str, ...]:
    """Run the graph over all rows, once for all readers; shows a progress bar on a terminal.

    Args:
        backbone: backbone of the bundle that is calibrated.
        rows: rows to read.
        readers: readers of the states.
        description: label of the progress bar.

    Returns:
        One message for each row that could not be read, or that a reader did not use.
    """
    faults: list[str] = []
    taps = {tap for reader in readers for tap in reader.taps}
    with tqdm(total=len(rows), desc=description, unit="row", disable=None) as bar:
        for start in range(0, len(rows), _CHUNK):
            chunk = tuple(rows[start : start + _CHUNK])
            for some, pooled in _read(backbone, chunk, taps, faults):
                for reader in readers:
                    faults += reader.take(some, pooled)
            bar.update(len(chunk))
    return tuple(dict.fromkeys(faults))


def record(
    backbone: Backbone, rows: Sequence[Row], tap: Tap, description: str, recording: Recording
) -> RecordedStates[States]:
    """Record one tap's states of all rows in ``recording``; see ``collect``."""
    collector = Collector(tap, recording)
    faults = read_once(backbone, rows, [collector], description)
    return collector.recorded(len(rows), faults)


def collect(
    backbone: Backbone, rows: Sequence[Row], tap: Tap, description: str
) -> RecordedStates[Array]:
    """Record one tap's states of all rows in an array; shows a progress bar on a terminal.

    Args:
        backbone: backbone of the bundle that is calibrated.
        rows: rows to read.
        tap: view and pooling of the states.
        description: label of the progress bar.

    Raises:
        CalibrationError: no row could be read.
    """
    recording = Recording(len(rows), memory_bytes=sys.maxsize)
    recorded = record(backbone, rows, tap, description, recording)
    states = np.concatenate([block.swapaxes(0, 1) for _, block in recording.blocks()])
    if tap.pooling == "extremes":
        states = states.reshape(len(states), 1, -1, 2, states.shape[-1])
    return RecordedStates(
        recorded.rows, np.ascontiguousarray(states), recorded.owner, recorded.faults
    )


def _broken(states: Array, tap: Tap) -> Array:
    """Which values are invalid; the extremes of a role without tokens are infinite and valid."""
    return np.isnan(states) if tap.pooling == "extremes" else ~np.isfinite(states)


def _read(
    backbone: Backbone, rows: tuple[Row, ...], taps: set[Tap], faults: list[str]
) -> Iterator[tuple[tuple[Row, ...], PooledStates]]:
    """Read one chunk together, or row by row if the chat template rejects one of the rows.

    Messages on rows that cannot be read are added to ``faults``.
    """
    try:
        pooled = backbone.read([row.request for row in rows], taps)
    except InputError as error:
        if len(rows) == 1:
            faults.append(f"{rows[0].place}: {error}")
            return
        for row in rows:
            yield from _read(backbone, (row,), taps, faults)
    else:
        yield rows, pooled
