"""The WeightWatch kernels; see the package for what states are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.arrays import listed, parameter
from layerguard.runtime.kernels.call import (
    Doubles,
    Layers,
    Singles,
    check,
    in_place,
    pointer,
    row_count,
    width_error,
)
from layerguard.runtime.types import ROLES, Array

_DTYPES = {np.dtype(np.float32): lib.LG_F32, np.dtype(np.float16): lib.LG_F16}


class DirectionsKernel:
    """Watched directions, and the least and largest cosine of a text's tokens to each.

    cosine_{k,t} = <u_k, h_{layer of k}[t]> / ||h_{layer of k}[t]||. Source: WeightWatch,
    arXiv 2508.00161.

    Args:
        directions: unit rows u, float32 or float16 (K, D); float16 is kept, for half the bytes.
        layers: index of the state that each row is compared with, ascending, int (K,).

    Raises:
        InputError: wrong shape or dtype, no direction, not finite, layers below 0 or not ascending;
            every fault is listed.

    Attributes:
        count: K.
        width: D.
        layers: the states that are read, ascending.
    """

    def __init__(self, directions: Array, layers: Array) -> None:
        faults: list[str] = []
        count, width = np.shape(directions) if np.ndim(directions) == 2 else (0, 0)
        if count == 0 or width == 0:
            found = np.shape(directions)
            faults.append(f"directions: found shape {found}, expected (count, width), both >= 1")
        dtype = np.asarray(directions).dtype
        if dtype not in _DTYPES:
            faults.append(f"directions: found dtype {dtype}, expected float32 or float16")
            dtype = np.dtype(np.float32)
        vectors = parameter(faults, "directions", directions, dtype.type, (count, width))
        indices = parameter(faults, "layers", layers, np.intc, (count,))
        if (indices < 0).any() or (np.diff(indices) < 0).any():
            faults.append(
                "layers: found an index below 0 or before a larger one, expected ascending"
            )
        if faults:
            raise InputError(listed("WeightWatch directions", faults))
        chosen, first = np.unique(indices, return_index=True)
        self.count, self.width = count, width
        self.layers: tuple[int, ...] = tuple(chosen.tolist())
        # the kernel is given the chosen states alone, so it finds the i-th at i
        places = np.arange(len(chosen), dtype=np.intc)
        offsets = np.append(first, count).astype(np.intc)
        fields = {
            "states_needed": len(chosen),
            "width": width,
            "chosen_count": len(chosen),
            "layers": pointer("int[]", places),
            "offsets": pointer("int[]", offsets),
            "directions": pointer("char[]", vectors),
            "dtype": _DTYPES[dtype],
        }
        self._parameters = fields
        self._model = ffi.new("lg_directions *", fields)
        check(lib.lg_directions_check(self._model), "WeightWatch directions")

    def untouched(self) -> Singles:
        """The extremes of no token at all: +inf and -inf, float32 (4, 2, K)."""
        extremes = np.empty((len(ROLES), 2, self.count), np.float32)
        extremes[:, 0], extremes[:, 1] = np.inf, -np.inf
        return extremes

    def extremes(
        self,
        states: Layers | Mapping[int, Array],
        mask: Array | None = None,
        roles: Array | None = None,
        into: Singles | None = None,
    ) -> Singles:
        """The least and largest cosine of each role's tokens to each direction.

        Args:
            states: of one text, each (tokens, D); see the module. Read at ``layers`` alone, so a
                mapping of those will do.
            mask: bool or integer (tokens,), zero where a token does not count; None counts all.
            roles: index in ``ROLES`` of each token, integer (tokens,); None: all are the user's.
            into: extremes of the text's earlier tokens, which are widened and returned.

        Returns:
            float32 (4, 2, K), by role: least, then largest. +inf and -inf for a role without
            tokens; NaN, which stays, where a state that is read is not finite or of length zero.

        Raises:
            InputError: a state that is read is missing; shape, dtype or layout is not what the
                directions take.
        """
        try:
            arrays = tuple([states[layer] for layer in self.layers])
        except (IndexError, KeyError) as error:
            raise InputError(
                f"found {len(states)} states, expected at least those numbered "
                f"{', '.join(map(str, self.layers))}: give the states of the model that was "
                "calibrated"
            ) from error
        kept = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
        whose = None if roles is None else _checked_roles(roles)
        extremes = self.untouched() if into is None else into
        if extremes.shape != (len(ROLES), 2, self.count) or extremes.dtype != np.float32:
            raise InputError(
                f"into: found {extremes.dtype} {extremes.shape}, expected float32 "
                f"{(len(ROLES), 2, self.count)}: start with untouched()"
            )

        def attempt(plain: tuple[Any, ...]) -> Singles | None:
            """The extremes, or None if the arrays are not what the C core reads in place."""
            tokens = (row_count(plain),)
            for name, given in (("mask", kept), ("roles", whose)):
                if given is not None and given.shape != tokens:
                    raise InputError(
                        f"{name}: found shape {given.shape}, expected {tokens}, one entry for each "
                        "token of the states"
                    )
            single = getattr(plain[0], "dtype", None) == np.float32
            needed = lib.lg_extremes_workspace(self._model, lib.LG_F32 if single else lib.LG_F16)
            workspace = np.empty(needed, np.float32)
            status = lib.lg_extremes_arrays(
                self._model,
                id(plain),
                0 if kept is None else id(kept),
                0 if whose is None else id(whose),
                id(extremes),
                id(workspace),
            )
            if status == lib.LG_NOT_PLAIN:
                return None
            if status == lib.LG_ERR_SHAPE:
                raise width_error(plain, str(self.width))
            check(status, "WeightWatch")
            return extremes

        return in_place(attempt, arrays)


class RangesKernel:
    """How far extremes lie outside of the ranges that were seen, in units of ``scale``.

    excess = max((low - least) / scale, (largest - high) / scale) over roles and directions.

    Args:
        low: least cosine of clean texts, float32 (4, K), a row a role.
        high: largest, float32 (4, K).
        scale: > 0, float32 (4, K).

    Raises:
        InputError: wrong shape, not finite, or a scale that is not positive; every fault is listed.
    """

    def __init__(self, low: Array, high: Array, scale: Array) -> None:
        faults: list[str] = []
        self.count = np.shape(low)[-1] if np.ndim(low) else 0
        shape = (len(ROLES), self.count)
        arrays = [
            parameter(faults, name, value, np.float32, shape, positive=name == "scale")
            for name, value in (("low", low), ("high", high), ("scale", scale))
        ]
        if faults:
            raise InputError(listed("WeightWatch ranges", faults))
        self._parameters = [pointer("float[]", array) for array in arrays]
        self._ranges = ffi.new("lg_ranges *", [self.count, *self._parameters])

    def score(self, extremes: Array) -> tuple[Doubles, npt.NDArray[np.intc]]:
        """Score every row.

        Args:
            extremes: float32 (rows, 4, 2, K), as ``DirectionsKernel.extremes`` gives them.

        Returns:
            The largest excess, float64 (rows,), above 0 outside of the ranges; NaN where an extreme
            is NaN or no role has tokens. And where it lies, int (rows,): role * K + direction,
            -1 where no role has tokens.

        Raises:
            InputError: extremes of another shape.
        """
        rows = np.ascontiguousarray(extremes, np.float32)
        if rows.ndim != 4 or rows.shape[1:] != (len(ROLES), 2, self.count):
            raise InputError(
                f"extremes: found shape {rows.shape}, expected (rows, {len(ROLES)}, 2, "
                f"{self.count}): give what the calibrated directions were read with"
            )
        scores, worst = np.empty(len(rows)), np.empty(len(rows), np.intc)
        call = ffi.new(
            "lg_excess_call *",
            [
                self._ranges,
                pointer("float[]", rows),
                len(rows),
                pointer("double[]", scores),
                pointer("int[]", worst),
            ],
        )
        check(lib.lg_excess(call), "WeightWatch")
        return scores, worst


def _checked_roles(roles: Array) -> Array:
    """The roles as the C core reads them."""
    given = np.asarray(roles)
    if given.dtype.kind not in "iu" or ((given < 0) | (given >= len(ROLES))).any():
        raise InputError(
            f"roles: found {given.dtype} from {given.min(initial=0)} to {given.max(initial=0)}, "
            f"expected integers from 0 to {len(ROLES) - 1}: "
            + ", ".join(f"{index} {role}" for index, role in enumerate(ROLES))
        )
    return np.array(given, np.uint8)
