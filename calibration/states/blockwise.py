"""States of many rows, read in parts: the input of every ``fit``.

All states of all rows are ``rows x (L + 1) x hidden`` float32, 27 GB for 50,000 rows of an 8B
model. A fit therefore never reads them all at once. It reads blocks of rows, or one layer of all
rows, as often as needed. The states are in an array of the caller, which may be an ``np.memmap``,
or in a ``Recording`` (``recording``), in memory or on disk.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

BLOCK_BYTES = 64 << 20
"""Size of a block of states; a single row may exceed it."""


@runtime_checkable
class States(Protocol):
    """Finite states of rows that can be read repeatedly.

    Attributes:
        shape: rows, layers (L + 1; for extremes 8, two for each role), width.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, layers, width."""

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield all rows once, in order: a slice of rows, and float32 [layers, rows, width].

        The next block may reuse the memory of the last one.
        """

    def layer(self, index: int) -> Array:
        """One layer of all rows, float32 [rows, width]; must not be written to."""


def as_states(states: Array | States) -> States:
    """``states`` itself, or a validated array as ``States``; see ``checked`` for the errors."""
    return states if isinstance(states, States) else ArrayStates(checked(states))


class ArrayStates:
    """States in an array."""

    def __init__(self, states: Array) -> None:
        """Take float32 [rows, layers, width]."""
        self._states = states

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, layers, width."""
        rows, layers, width = self._states.shape
        return rows, layers, width

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See ``States.blocks``."""
        rows, layers, width = self.shape
        step = rows_at_once(layers, width)
        for start in range(0, rows, step):
            chosen = slice(start, min(start + step, rows))
            yield chosen, self._states[chosen].swapaxes(0, 1)

    def layer(self, index: int) -> Array:
        """See ``States.layer``."""
        return self._states[:, index]


class SelectedStates:
    """Some rows of other states, in the same order."""

    def __init__(self, states: States, chosen: Array) -> None:
        """Select the rows where ``chosen``, bool [rows], is True."""
        self._states, self._chosen = states, chosen

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, layers, width."""
        _, layers, width = self._states.shape
        return int(np.count_nonzero(self._chosen)), layers, width

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See ``States.blocks``."""
        start = 0
        for rows, block in self._states.blocks():
            some = block[:, self._chosen[rows]]
            if some.shape[1]:
                yield slice(start, start + some.shape[1]), some
                start += some.shape[1]

    def layer(self, index: int) -> Array:
        """See ``States.layer``."""
        selected: Array = self._states.layer(index)[self._chosen]
        return selected


def rows_at_once(layers: int, width: int) -> int:
    """The number of rows in a block."""
    return max(1, BLOCK_BYTES // (layers * width * np.dtype(np.float32).itemsize))


def checked(states: Array) -> Array:
    """``states`` as float32 [n, L + 1, hidden]; copied only if the dtype differs.

    Raises:
        InputError: not three-dimensional, not floating point, or fewer than two states a row.
        CalibrationError: a value is not finite; the message names the first such row.
    """
    states = np.asarray(states)
    if states.ndim != 3 or states.shape[1] < 2 or states.dtype.kind != "f":
        raise InputError(
            f"states: found {states.dtype} {list(states.shape)}; expected floats "
            "[rows, layers + 1, hidden], one pooled vector a state"
        )
    states = states.astype(np.float32, copy=False)
    bad = [row for row, values in enumerate(states) if not np.isfinite(values).all()]
    if bad:
        row = bad[0]
        layer = int(np.flatnonzero(~np.isfinite(states[row]).all(axis=1))[0])
        raise CalibrationError(
            f"states: row {row} is not finite at state {layer} ({len(bad)} such rows of "
            f"{len(states)}); expected finite numbers. Leave those rows out, or export the model "
            "in float32 if float16 overflows"
        )
    return states
