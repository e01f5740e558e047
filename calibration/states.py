"""Checks of pooled states that every ``fit`` makes first."""

import numpy as np

from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array


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
