"""Prepares arrays for the C core: states are read in place, parameters are copied and checked.

All faults are listed in one error.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.host import host
from layerguard.runtime.types import Array

_STATE_DTYPES = ("float32", "float16", "uint16")


def plain(arrays: tuple[Any, ...]) -> tuple[Array, ...]:
    """The states as numpy arrays that the C core can read in place.

    They are float32, float16 or uint16 (bfloat16's bits), all of one dtype, shape (rows, width) and
    stride. Layers are copied only if their strides differ.

    Raises:
        InputError: layers cannot be read; each is listed with what was found and what to do.
    """
    faults: list[str] = []
    layers = [_plain_layer(faults, index, array) for index, array in enumerate(arrays)]
    readable = [(index, array) for index, array in enumerate(layers) if array is not None]
    for index, array in readable[1:]:
        place, first = readable[0]
        if (array.shape, array.dtype) != (first.shape, first.dtype):
            faults.append(
                f"layer {index}: found {array.dtype} {array.shape}, expected {first.dtype} "
                f"{first.shape} as in layer {place}"
            )
    if faults:
        raise InputError(listed("states", faults))
    if len({array.strides for _, array in readable}) > 1:
        return tuple(np.ascontiguousarray(array) for _, array in readable)
    return tuple(array for _, array in readable)


def _plain_layer(faults: list[str], index: int, value: Any) -> Array | None:
    """The layer as a numpy array, or None; faults are appended to ``faults``."""
    try:
        array = host(value)
    except InputError as error:
        faults.append(f"layer {index}: {error}")
        return None
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
    if array.dtype.name not in _STATE_DTYPES or not array.dtype.isnative:
        faults.append(
            f"layer {index}: found dtype {array.dtype}, expected float32, float16 or bfloat16 (or "
            "its bits as uint16) in native byte order; convert it with astype(np.float32)"
        )
    if not array.flags.aligned:
        faults.append(
            f"layer {index}: found elements that are not aligned to their size, expected aligned "
            "elements; copy it with array.copy()"
        )
    if array.ndim != 2:
        faults.append(f"layer {index}: found shape {array.shape}, expected (rows, width)")
    elif array.shape[1] > 1 and array.strides[1] != array.itemsize:
        faults.append(
            f"layer {index}: found {array.strides[1]} bytes from one element of a row to the next, "
            f"expected {array.itemsize}; copy it with np.ascontiguousarray"
        )
    return array


def parameter(
    faults: list[str],
    name: str,
    value: Array,
    dtype: type[np.generic],
    shape: tuple[int, ...],
    *,
    positive: bool = False,
) -> Array:
    """A private, contiguous copy of a parameter; its faults are appended to ``faults``."""
    array = np.array(value, dtype=dtype, order="C")
    if array.shape != shape:
        faults.append(f"{name}: found shape {array.shape}, expected {shape}")
    if dtype is np.intc and not np.array_equal(array, value):
        faults.append(f"{name}: found a value that is not a 32-bit integer, expected none")
    if not np.isfinite(array).all():
        faults.append(f"{name}: found a value that is not finite, expected none")
    elif positive and not (array > 0).all():
        faults.append(f"{name}: found a value that is not above 0, expected none")
    return array


def listed(what: str, faults: Sequence[str]) -> str:
    """One message with all faults, one per line."""
    return f"{what} cannot be used:" + "".join(f"\n  - {fault}" for fault in faults)
