"""States of rows, collected through the runtime: the very numbers that will be served.

The graph runs once over the rows for all that read them: those that keep states for a fit, and
those that only score.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from layerguard.calibration.recording import Recording
from layerguard.calibration.states import States
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Tap

_CHUNK = 128
"""Requests that are read at a time; the backbone makes batches of like length of them."""

Kept = TypeVar("Kept", Array, States)


@dataclass(frozen=True, slots=True)
class Collected(Generic[Kept]):
    """Pooled states, one row a window.

    Attributes:
        rows: the rows that could be read.
        states: float32 [windows, L + 1, hidden]; of extremes an array [windows, 1, 4, 2, K], or
            ``States`` [windows, 8, K].
        owner: int64 [windows], the index in ``rows`` of each window's row.
        faults: a sentence for each row that could not be read.
    """

    rows: tuple[Row, ...]
    states: Kept
    owner: Array
    faults: tuple[str, ...]


class Reader(Protocol):
    """What reads the pooled states of rows as they come."""

    @property
    def taps(self) -> Collection[Tap]:
        """What it reads of every row."""

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """Read some rows; a sentence for each that is of no use."""


class Collector:
    """A ``Reader`` that keeps the states of one tap."""

    def __init__(self, tap: Tap, recording: Recording) -> None:
        """Keep them in ``recording``, which the caller closes."""
        self.taps = (tap,)
        self._recording = recording
        self._rows: list[Row] = []
        self._owners: list[Array] = []

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """See ``Reader``; rows whose states are not finite are of no use."""
        (tap,) = self.taps
        layers, owner = pooled.of(tap)
        found = np.stack(layers, axis=1)
        good = np.ones(len(rows), dtype=bool)
        good[owner[_broken(found, tap).any(axis=tuple(range(1, found.ndim)))]] = False
        number = len(self._rows) + np.cumsum(good) - 1
        mine = good[owner]
        if mine.any():
            kept = found if mine.all() else found[mine]
            width = kept.shape[-1]
            self._recording.append(kept.reshape(len(kept), -1, width))
            self._owners.append(number[owner[mine]])
        self._rows += [row for row, fine in zip(rows, good, strict=True) if fine]
        return [
            f"{row.place}: its states are not finite; export the model in float32"
            for row, fine in zip(rows, good, strict=True)
            if not fine
        ]

    def collected(self, asked: int, faults: Sequence[str]) -> Collected[States]:
        """What was kept of ``asked`` rows; ``faults`` are those of the pass.

        Raises:
            CalibrationError: nothing was.
        """
        if not self._rows:
            raise CalibrationError(
                f"none of {asked} rows could be read; expected texts: {'; '.join(faults[:3])}"
            )
        owner = np.concatenate(self._owners)
        return Collected(tuple(self._rows), self._recording, owner, tuple(faults))


def read_once(
    backbone: Backbone, rows: Sequence[Row], readers: Sequence[Reader], description: str
) -> tuple[str, ...]:
    """Run the graph over all rows, once for all readers; a progress bar on a terminal.

    Args:
        backbone: of the bundle that is calibrated.
        rows: texts to read.
        readers: what they are read for.
        description: what the progress bar says.

    Returns:
        A sentence for each row that could not be read, or was of no use to some reader.
    """
    faults: list[str] = []
    taps = {tap for reader in readers for tap in reader.taps}
    for chunk, pooled in read_chunks(backbone, rows, taps, faults, description):
        for reader in readers:
            faults += reader.take(chunk, pooled)
    return tuple(dict.fromkeys(faults))


def record(
    backbone: Backbone, rows: Sequence[Row], tap: Tap, description: str, recording: Recording
) -> Collected[States]:
    """Keep one tap's states of all rows in ``recording``; see ``collect``."""
    collector = Collector(tap, recording)
    faults = read_once(backbone, rows, [collector], description)
    return collector.collected(len(rows), faults)


def collect(
    backbone: Backbone, rows: Sequence[Row], tap: Tap, description: str
) -> Collected[Array]:
    """One tap's states of all rows in one array in memory; a progress bar on a terminal.

    Args:
        backbone: of the bundle that is calibrated.
        rows: texts to read.
        tap: view and pooling to collect.
        description: what the progress bar says.

    Raises:
        CalibrationError: no row could be read.
    """
    recording = Recording(len(rows), memory_bytes=sys.maxsize)
    found = record(backbone, rows, tap, description, recording)
    states = np.concatenate([block.swapaxes(0, 1) for _, block in recording.blocks()])
    if tap.pooling == "extremes":
        states = states.reshape(len(states), 1, -1, 2, states.shape[-1])
    return Collected(found.rows, np.ascontiguousarray(states), found.owner, found.faults)


def _broken(states: Array, tap: Tap) -> Array:
    """Which numbers no fit can use; the extremes of a role that says nothing are infinite."""
    return np.isnan(states) if tap.pooling == "extremes" else ~np.isfinite(states)


def read_chunks(
    backbone: Backbone,
    rows: Sequence[Row],
    taps: set[Tap],
    faults: list[str],
    description: str,
) -> Iterator[tuple[tuple[Row, ...], PooledStates]]:
    """Rows and their pooled states, a chunk at a time; what cannot be read goes to ``faults``."""
    with tqdm(total=len(rows), desc=description, unit="row", disable=None) as bar:
        for start in range(0, len(rows), _CHUNK):
            chunk = tuple(rows[start : start + _CHUNK])
            yield from _read(backbone, chunk, taps, faults)
            bar.update(len(chunk))


def _read(
    backbone: Backbone, rows: tuple[Row, ...], taps: set[Tap], faults: list[str]
) -> Iterator[tuple[tuple[Row, ...], PooledStates]]:
    """One chunk at once, or row by row where the chat template refuses one of them."""
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
