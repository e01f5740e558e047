"""Reads the bits of bfloat16 arrays through DLPack; numpy reads the other dtypes itself.

numpy has no bfloat16 and refuses such capsules; the C core reads the bits as uint16. The structures
are those of DLPack 1.0 (dmlc.github.io/dlpack). A capsule that is not renamed still owns its array
and frees it when the capsule is deleted.
"""

import ctypes
from typing import Any

import numpy as np

from layerguard.runtime.types import Array

_BFLOAT16 = (4, 16, 1)
"""kDLBfloat, bits, lanes."""

_CAPSULE, _VERSIONED = b"dltensor", b"dltensor_versioned"


class _Tensor(ctypes.Structure):
    """DLTensor; strides count elements and are null for a contiguous array."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned; the older DLManagedTensor starts with its tensor."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


class _Held:
    """Exposes the bits to numpy, which keeps it alive as long as an array uses them."""

    def __init__(self, capsule: Any, interface: dict[str, Any]) -> None:
        self.capsule = capsule
        self.__array_interface__ = interface


_is_capsule = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def bfloat16_bits(value: Any) -> Array | None:
    """The bits of a bfloat16 array in place, uint16 with its shape and strides.

    Args:
        value: an array in host memory with ``__dlpack__``.

    Returns:
        None if the array has another dtype.
    """
    capsule = value.__dlpack__()
    if _is_capsule(capsule, _VERSIONED):
        tensor = _Versioned.from_address(_address(capsule, _VERSIONED)).tensor
    else:
        tensor = _Tensor.from_address(_address(capsule, _CAPSULE))
    if (tensor.code, tensor.bits, tensor.lanes) != _BFLOAT16:
        return None
    interface = {
        "version": 3,
        "typestr": np.dtype(np.uint16).str,
        "data": ((tensor.data or 0) + tensor.byte_offset, True),
        "shape": tuple(tensor.shape[: tensor.ndim]),
        "strides": tuple(2 * step for step in tensor.strides[: tensor.ndim])
        if tensor.strides
        else None,
    }
    return np.asarray(_Held(capsule, interface))
