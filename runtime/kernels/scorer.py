"""A detector of the C guard with its parameters; the package documents the format of states."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.arrays import listed, plain
from layerguard.runtime.kernels.call import (
    Layers,
    check,
    counted,
    row_count,
    width_error,
)
from layerguard.runtime.kernels.frozen import lacking, open_parameters
from layerguard.runtime.types import ROLES, Array

_READING = struct.Struct("iiddddii")
_EVIDENCE = struct.Struct("dii")
"""``lg_reading`` and ``lg_evidence``; unpacking is faster than numpy's structured arrays."""

_LAYER = slice(8, 12)
_NO_LAYER = struct.pack("i", -1)
"""The bytes of the layer in an entry of evidence, and their value in an unused entry."""

RawReading = tuple[int, int, float, float, float, float, int, int]
"""status, flagged, score, threshold, p_value, evidence, layer, place."""

RawEvidence = tuple[float, int, int]
"""value, layer, place."""

VALID: int = lib.LG_READ
"""The status of a reading whose score is finite."""


class Scorer:
    """Computes scores, p-values and evidence of many texts from their pooled states; thread-safe.

    Attributes:
        states: number of states of a row; the minimum if ``exact`` is False.
        exact: whether rows with more states are refused.
        width: width of a state; the minimum if ``exact_width`` is False.
        exact_width: whether wider states are refused.
    """

    def __init__(self, detector: str, params: Mapping[str, Array], *, extremes: bool) -> None:
        """Bind a detector.

        Args:
            detector: its name.
            params: its frozen parameters, which are copied.
            extremes: whether it reads extremes, float32 [rows, 4, 2, K], instead of states.

        Raises:
            InputError: parameters are missing or invalid; every fault is listed.
        """
        missing = lacking(detector, params)
        if missing:
            raise InputError(
                f"{detector}: the parameters lack {', '.join(missing)}; expected all arrays that "
                "its fit returned"
            )
        self._guard, faults = open_parameters(detector, params)
        if self._guard is None:
            raise InputError(listed(f"{detector} parameters", faults))
        info = ffi.new("lg_pooled_info *", [ffi.sizeof("lg_pooled_info")])
        check(lib.lg_pooled_describe(self._guard, 0, 0, info), detector)
        self._detector, self._extremes = detector, extremes
        self.states, self.exact = int(info.states), bool(info.states_known)
        self.width, self.exact_width = int(info.width), bool(info.width_known)

    def score(self, layers: Layers, evidence: int) -> list[tuple[RawReading, list[RawEvidence]]]:
        """The readings of all rows.

        Args:
            layers: states, each (rows, width); see the package. For extremes one array
                (rows, 4, 2, K), for windows and added lengths one array (rows, K).
            evidence: maximum number of entries of evidence per row.

        Returns:
            For each row its reading and its evidence, largest first.

        Raises:
            InputError: the states' number, shape, dtype or layout does not match the detector.
        """
        arrays = tuple(layers)
        if self._extremes:
            arrays = (self._flat(arrays[0]),)
        elif self.exact:
            arrays = counted(arrays, self.states)
        else:
            arrays = counted(arrays[: self.states], self.states)
        written = self._attempt(arrays, evidence) or self._attempt(plain(arrays), evidence)
        if written is None:
            raise AssertionError("the C core did not accept plain arrays")
        readings, entries = written
        size = evidence * _EVIDENCE.size
        return [
            (reading, _entries(entries[row * size : (row + 1) * size]))
            for row, reading in enumerate(_READING.iter_unpack(readings))
        ]

    def _attempt(
        self, arrays: tuple[Any, ...], evidence: int
    ) -> tuple[bytearray, bytearray] | None:
        """The bytes that C writes, or None if the C core cannot read the arrays in place."""
        rows = row_count(arrays)
        readings = bytearray(rows * _READING.size)
        entries = bytearray(rows * evidence * _EVIDENCE.size)
        status = lib.lg_pooled_arrays(self._guard, id(arrays), id(readings), id(entries), evidence)
        if status == lib.LG_NOT_PLAIN:
            return None
        if status == lib.LG_ERR_SHAPE:
            least = "" if self.exact_width else "at least "
            raise width_error(arrays, f"{least}{self.width}")
        check(status, self._detector)
        return readings, entries

    def _flat(self, extremes: Array) -> Array:
        """Extremes as rows, float32 (rows, 4 * 2 * K)."""
        rows = np.ascontiguousarray(extremes, np.float32)
        shape = (len(ROLES), 2, self.width // (2 * len(ROLES)))
        if rows.ndim != 4 or rows.shape[1:] != shape:
            expected = ", ".join(map(str, shape))
            raise InputError(
                f"extremes: found shape {rows.shape}, expected (rows, {expected}): pass extremes "
                "for the calibrated directions"
            )
        return rows.reshape(len(rows), self.width)


def _entries(written: bytearray) -> list[RawEvidence]:
    """The used entries of one row; in unused entries the layer is -1."""
    if written[_LAYER] in (b"", _NO_LAYER):
        return []
    return [entry for entry in _EVIDENCE.iter_unpack(written) if entry[1] >= 0]
