"""Frozen parameters in the C guard: the tables that declare them, and their faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.kernels.call import check
from layerguard.runtime.types import Array

_LIST_BYTES = 1 << 14
"""Buffer size for faults; if they need more, the call is repeated with a larger buffer."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An array of a detector, as its file in ``csrc/detectors/`` declares it.

    Attributes:
        name: ``weight_#`` stands for ``weight_0``, ``weight_1`` and so on.
        dtypes: numpy's names of the accepted dtypes, the usual one first.
        sides: the shape, one character per dimension: ``L`` the model's layers, ``D`` its width,
            another capital letter one length within the detector, a digit that length, ``*`` any.
        positive: whether every value must be above zero.
        ascending: whether the values must be in ascending order; equal values are allowed.
    """

    name: str
    dtypes: tuple[str, ...]
    sides: str
    positive: bool
    ascending: bool


@cache
def parameters(detector: str) -> tuple[Parameter, ...]:
    """The arrays of a detector.

    Raises:
        InputError: the C core has no such detector.
    """
    table: list[Parameter] = []
    info = ffi.new("lg_parameter_info *", [ffi.sizeof("lg_parameter_info")])
    while (status := lib.lg_parameter_describe(detector.encode(), len(table), info)) == lib.LG_OK:
        dtypes = [info.dtype, info.other_dtype] if info.other_dtype else [info.dtype]
        table.append(
            Parameter(
                _text(info.name),
                tuple(map(_text, dtypes)),
                _text(info.sides),
                bool(info.positive),
                bool(info.ascending),
            )
        )
    if not table:
        check(status, f"the parameters of {detector}")
    return tuple(table)


def lacking(detector: str, params: Mapping[str, Array]) -> list[str]:
    """The names of missing arrays; of a numbered list of arrays only the first."""
    names = [item.name.replace("#", "0") for item in parameters(detector)]
    return sorted(set(names) - params.keys())


def parameter_faults(
    detector: str, params: Mapping[str, Array], layers: int, width: int
) -> list[str]:
    """Every fault of the parameters for a model of this size.

    Args:
        detector: name of the detector.
        params: by name.
        layers: number of layers of the model.
        width: width of its states.
    """
    _, faults = open_parameters(detector, params, layers, width)
    return faults


def open_parameters(
    detector: str, params: Mapping[str, Array], layers: int = 0, width: int = 0
) -> tuple[Any, list[str]]:
    """A guard of the C core with one detector, or None; and every fault of the parameters."""
    arrays = {f"{detector}/{name}": np.asarray(value) for name, value in params.items()}
    named, owners = _named(arrays)
    own_name = ffi.new("char[]", detector.encode())
    call = ffi.new("lg_open_call *", {"struct_size": ffi.sizeof("lg_open_call")})
    call.arrays, call.array_count, call.detector = named, len(arrays), own_name
    call.layers, call.width = layers, width
    guard = ffi.new("lg_guard **")
    size = _LIST_BYTES
    while True:
        text = ffi.new("char[]", size)
        call.faults, call.faults_size = text, size
        status = lib.lg_open_checked(call, guard)
        if call.faults_needed <= size:
            break
        size = call.faults_needed
    del owners
    if status == lib.LG_OK:
        return ffi.gc(guard[0], lib.lg_close), []
    return None, _text(text).splitlines() or [_text(lib.lg_strerror(status))]


def _named(arrays: Mapping[str, Array]) -> tuple[Any, Sequence[Any]]:
    """The arrays as ``lg_named_array``, and the objects that must live as long as they are used."""
    owners: list[Any] = []
    named = ffi.new("lg_named_array[]", max(len(arrays), 1))
    for item, (name, array) in zip(named, arrays.items(), strict=False):
        plain = np.ascontiguousarray(array)
        dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
        fields = {
            "name": ffi.new("char[]", name.encode()),
            "dtype": ffi.new("char[]", dtype.encode()),
            "sides": ffi.new("size_t[]", list(array.shape)),
            "data": ffi.cast("void *", plain.ctypes.data),
        }
        for field, value in fields.items():
            setattr(item, field, value)
        item.rank = array.ndim
        owners += [plain, fields]
    return named, owners


def _text(value: Any) -> str:
    return str(ffi.string(value).decode(errors="replace"))
