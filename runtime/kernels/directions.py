"""Cosines to watched directions, and their excess over calibrated ranges."""

from collections.abc import Mapping
from typing import Any, Self

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
    check_per_token,
    chosen_states,
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
        directions: unit rows u, float32 or float16 (K, D); float16 is not converted.
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
            shape = np.shape(directions)
            faults.append(f"directions: found shape {shape}, expected (count, width), both >= 1")
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
            raise InputError(listed("directions", faults))
        chosen, first = np.unique(indices, return_index=True)
        self.count, self.width = count, width
        self.layers: tuple[int, ...] = tuple(chosen.tolist())
        # the kernel receives only the chosen states, so state i of them has index i
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
        self._arguments = directions, layers
        self._parameters = fields
        self._model = ffi.new("lg_directions *", fields)
        check(lib.lg_directions_check(self._model), "directions")

    def __reduce__(self) -> tuple[type[Self], tuple[Array, Array]]:
        """What pickle keeps: the parameters, which are bound again."""
        return type(self), self._arguments

    def untouched(self) -> Singles:
        """The extremes before the first token: +inf and -inf, float32 (4, 2, K)."""
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
            states: of one text, each (tokens, D); see the package. Only the states ``layers`` are
                read, so a mapping of these is sufficient.
            mask: bool or integer (tokens,), zero where a token is ignored; None: no token is.
            roles: index in ``ROLES`` of each token, integer (tokens,); None: all are the user's.
            into: extremes of the text's earlier tokens, which are updated and returned.

        Returns:
            float32 (4, 2, K), by role: least, then largest. +inf and -inf for a role without
            tokens; NaN, permanently, after a state that is not finite or has length zero.

        Raises:
            InputError: a state is missing, or a shape, dtype or layout does not match the
                directions.
        """
        arrays = chosen_states(states, self.layers)
        mask_bytes = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
        role_bytes = None if roles is None else _checked_roles(roles)
        extremes = self.untouched() if into is None else into
        if extremes.shape != (len(ROLES), 2, self.count) or extremes.dtype != np.float32:
            raise InputError(
                f"into: found {extremes.dtype} {extremes.shape}, expected float32 "
                f"{(len(ROLES), 2, self.count)}: start with untouched()"
            )

        def attempt(plain: tuple[Any, ...]) -> Singles | None:
            """The extremes, or None if the C core cannot read the arrays in place."""
            check_per_token("mask", mask_bytes, row_count(plain))
            check_per_token("roles", role_bytes, row_count(plain))
            single = getattr(plain[0], "dtype", None) == np.float32
            needed = lib.lg_extremes_workspace(self._model, lib.LG_F32 if single else lib.LG_F16)
            workspace = np.empty(needed, np.float32)
            status = lib.lg_extremes_arrays(
                self._model,
                id(plain),
                0 if mask_bytes is None else id(mask_bytes),
                0 if role_bytes is None else id(role_bytes),
                id(extremes),
                id(workspace),
            )
            if status == lib.LG_NOT_PLAIN:
                return None
            if status == lib.LG_ERR_SHAPE:
                raise width_error(plain, str(self.width))
            check(status, "extremes")
            return extremes

        return in_place(attempt, arrays)


class RangesKernel:
    """The excess of extremes over the calibrated ranges, in units of ``scale``.

    excess = max((low - least) / scale, (largest - high) / scale) over roles and directions.

    Args:
        low: least cosine of clean texts, float32 (4, K), one row per role.
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
            raise InputError(listed("ranges", faults))
        self._parameters = [pointer("float[]", array) for array in arrays]
        self._ranges = ffi.new("lg_ranges *", [self.count, *self._parameters])

    def score(self, extremes: Array) -> tuple[Doubles, npt.NDArray[np.intc]]:
        """Score every row.

        Args:
            extremes: float32 (rows, 4, 2, K), as ``DirectionsKernel.extremes`` returns them.

        Returns:
            The largest excess, float64 (rows,), above 0 outside of the ranges; NaN if an extreme is
            NaN or no role has tokens. And its position, int (rows,): role * K + direction, -1 if no
            role has tokens.

        Raises:
            InputError: extremes of another shape.
        """
        rows = np.ascontiguousarray(extremes, np.float32)
        if rows.ndim != 4 or rows.shape[1:] != (len(ROLES), 2, self.count):
            raise InputError(
                f"extremes: found shape {rows.shape}, expected (rows, {len(ROLES)}, 2, "
                f"{self.count}): pass extremes for the calibrated directions"
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
        check(lib.lg_excess(call), "ranges")
        return scores, worst


def _checked_roles(roles: Array) -> Array:
    """The roles as uint8, for the C core."""
    array = np.asarray(roles)
    if array.dtype.kind not in "iu" or ((array < 0) | (array >= len(ROLES))).any():
        raise InputError(
            f"roles: found {array.dtype} from {array.min(initial=0)} to {array.max(initial=0)}, "
            f"expected integers from 0 to {len(ROLES) - 1}: "
            + ", ".join(f"{index} {role}" for index, role in enumerate(ROLES))
        )
    return np.array(array, np.uint8)
