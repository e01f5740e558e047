"""Arrays of any library as numpy views of host memory, without copies."""

from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.dlpack import bfloat16_bits
from layerguard.runtime.types import Array

_HOST = (1, 3, 11, 13)
"""DLPack device types that the host can read: host, pinned for CUDA or ROCm, managed memory."""
_DEVICES = {2: "CUDA", 8: "Metal", 10: "ROCm", 14: "oneAPI"}
_OFFERS = ("__dlpack__", "__array_interface__")


def offers_memory(value: Any) -> bool:
    """Whether an object is an array, of numpy or of another library."""
    return isinstance(value, (np.ndarray, memoryview)) or any(hasattr(value, o) for o in _OFFERS)


def host(value: Any) -> Array:
    """A numpy view of an array.

    Args:
        value: a numpy array, a memory view, or an object with ``__dlpack__`` or
            ``__array_interface__``; bfloat16 through DLPack is returned as its bits, uint16.

    Raises:
        InputError: it is not an array, or its memory is an accelerator's.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__"):
            return _from_dlpack(value)
        if offers_memory(value):
            return np.asarray(value)
        reason = "it has neither __dlpack__ nor __array_interface__"
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error)
    raise InputError(
        f"found {type(value).__name__} that numpy cannot read in place ({reason}), expected an "
        "array in host memory; convert it, bfloat16 as its uint16 bits"
    )


def _from_dlpack(value: Any) -> Array:
    kind, number = value.__dlpack_device__()
    if kind not in _HOST:
        device = _DEVICES.get(int(kind), f"DLPack's type {int(kind)}")
        raise InputError(
            f"found {type(value).__name__} in the memory of device {number} ({device}), expected "
            "host memory; copy it there first, as tensor.cpu() does"
        )
    named = str(getattr(value, "dtype", "bfloat16"))  # faster than reading the capsule
    bits = bfloat16_bits(value) if "bfloat16" in named else None
    return np.from_dlpack(value) if bits is None else bits
