"""Record states of rows with the runtime and the graph that serves later."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Generic, TypeVar

import numpy as np

from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.passes import Pass, Reduction, read_once
from layerguard.calibration.states.recording import Recording
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array, Tap

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


@dataclass(frozen=True, slots=True)
class FiniteStates:
    """A ``Reduction`` that keeps the states of one tap: those of the rows that are all finite."""

    tap: Tap

    @property
    def taps(self) -> tuple[Tap]:
        """See ``Reduction``."""
        return (self.tap,)

    def __call__(
        self, rows: Sequence[Row], pooled: PooledStates, reader: TokenReader
    ) -> tuple[Array, Array, Array]:
        """Keep the states.

        Returns:
            bool [rows], whether a row's states are finite; the states of the windows of these rows,
            float32 [windows, layers, width]; and int64 [windows], the number of each window's row.
        """
        del reader
        layers, owner = pooled.of(self.tap)
        states = np.stack(layers, axis=1)
        good = np.ones(len(rows), dtype=bool)
        good[owner[_broken(states, self.tap).any(axis=tuple(range(1, states.ndim)))]] = False
        windows = good[owner]
        finite = states if windows.all() else states[windows]
        layer_count = math.prod(states.shape[1:-1])  # -1 would fail where no window is left
        shape = (len(finite), layer_count, states.shape[-1])
        return good, finite.reshape(shape), owner[windows]


class Collector:
    """A ``Reader`` that stores the states of one tap; rows with non-finite states are not used.

    Attributes:
        reduction: keeps the states.
        rows: the rows whose states are stored.
    """

    def __init__(self, tap: Tap, recording: Recording) -> None:
        """Store the states in ``recording``, which the caller closes."""
        self.reduction: Reduction = FiniteStates(tap)
        self._recording = recording
        self.rows: list[Row] = []
        self._owners: list[Array] = []

    def add(self, rows: Sequence[Row], kept: Any) -> list[str]:
        """See ``Reader``."""
        good, states, owner = kept
        number = len(self.rows) + np.cumsum(good) - 1
        if len(states):
            self._recording.append(states)
            self._owners.append(number[owner])
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


def record(
    backbone: Backbone,
    rows: Sequence[Row],
    tap: Tap,
    description: str,
    recording: Recording,
    read: Pass = read_once,
) -> RecordedStates[States]:
    """Record one tap's states of all rows in ``recording`` with a pass; see ``collect``."""
    collector = Collector(tap, recording)
    faults = read(backbone, rows, [collector], description)
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
