"""States of rows, collected through the runtime: the very numbers that will be served."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from layerguard.runtime.backbone import Backbone, PooledStates
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows import Row
from layerguard.runtime.types import Array, Tap

_CHUNK = 128
"""Requests that are read at a time; the backbone makes batches of like length of them."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Pooled states, one row a window.

    Attributes:
        rows: the rows that could be read.
        states: float32 [windows, L + 1, hidden], or [windows, 1, 4, 2, K] of extremes.
        owner: int64 [windows], the index in ``rows`` of each window's row.
        faults: a sentence for each row that could not be read.
    """

    rows: tuple[Row, ...]
    states: Array
    owner: Array
    faults: tuple[str, ...]


def collect(backbone: Backbone, rows: Sequence[Row], tap: Tap, description: str) -> Collected:
    """Run the graph over all rows; a progress bar on a terminal.

    Args:
        backbone: of the bundle that is calibrated.
        rows: texts to read.
        tap: view and pooling to collect.
        description: what the progress bar says.

    Raises:
        CalibrationError: no row could be read.
    """
    faults: list[str] = []
    kept: list[Row] = []
    states, owners = [], []
    for chunk, pooled in read_chunks(backbone, rows, {tap}, faults, description):
        layers, owner = pooled.of(tap)
        found = np.stack(layers, axis=1)
        good = np.ones(len(chunk), dtype=bool)
        good[owner[_broken(found, tap).any(axis=tuple(range(1, found.ndim)))]] = False
        faults += [
            f"{row.place}: its states are not finite; export the model in float32"
            for row, fine in zip(chunk, good, strict=True)
            if not fine
        ]
        number = len(kept) + np.cumsum(good) - 1
        states.append(found[good[owner]])
        owners.append(number[owner[good[owner]]])
        kept += [row for row, fine in zip(chunk, good, strict=True) if fine]
    if not kept:
        raise CalibrationError(
            f"none of {len(rows)} rows could be read; expected texts: {'; '.join(faults[:3])}"
        )
    return Collected(tuple(kept), np.concatenate(states), np.concatenate(owners), tuple(faults))


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
