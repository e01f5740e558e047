"""States of many rows, given in parts: what every ``fit`` reads, and checks first.

All states of all rows are ``rows x (L + 1) x hidden`` float32, 27 GB for 50,000 rows of an 8B
model. So a fit never asks for them at once: it goes over blocks of rows, or over one layer of all
rows, as often as it has to. The states lie in an array of the caller's, which may be an
``np.memmap``, or in a ``Recording`` (``recording.py``), in memory or on disk.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

BLOCK_BYTES = 64 << 20
"""Of the states that are read at once; one row may exceed it."""


@runtime_checkable
class States(Protocol):
    """Finite states of rows that can be read again and again.

    Attributes:
        shape: rows, layers (L + 1, or 8 roles and ends of extremes), width.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, layers, width."""

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """All rows once, in order: which rows, and their states, float32 [layers, rows, width].

        The next block may take the memory of the last one.
        """

    def layer(self, index: int) -> Array:
        """One layer of all rows, float32 [rows, width]; not to be written to."""


def as_states(states: Array | States) -> States:
    """``states`` as they are, or a checked array of them; see ``checked`` for the errors."""
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


def rows_at_once(layers: int, width: int) -> int:
    """How many rows make a block."""
    return max(1, BLOCK_BYTES // (layers * width * np.dtype(np.float32).itemsize))


def checked(states: Array) -> Array:
    """``states`` as float32 [n, L + 1, hidden], without a copy where they are that already.

    Raises:
        InputError: not three-dimensional, not floating point, or fewer than two states a row.
        CalibrationError: a value is not finite; the first such row is named.
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
