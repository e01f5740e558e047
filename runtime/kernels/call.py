"""What every kernel's call needs: states in place, pointers, and statuses turned into errors."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.kernels.arrays import plain
from layerguard.runtime.types import Array

Layers = Sequence[Array] | Array
Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
T = TypeVar("T")


def in_place(attempt: Callable[[tuple[Any, ...]], T | None], arrays: tuple[Any, ...]) -> T:
    """What ``attempt`` makes of the arrays, if need be after making them plain."""
    result = attempt(arrays)
    if result is None:
        result = attempt(plain(arrays))
    if result is None:
        raise AssertionError("states that were made plain are not")
    return result


def width_error(arrays: tuple[Any, ...], expected: str) -> InputError:
    """What to raise where states are of another width than the parameters."""
    return InputError(
        f"found states of width {arrays[0].shape[1]}, expected {expected}: give the states of the "
        "model that was calibrated"
    )


def counted(layers: Layers, count: int) -> tuple[Any, ...]:
    """The layers as a tuple of ``count`` arrays."""
    arrays = tuple(layers)
    if len(arrays) != count:
        raise InputError(
            f"found {len(arrays)} states, expected {count}: the embedding output and one after "
            "each block, of the model that was calibrated"
        )
    return arrays


def row_count(arrays: tuple[Any, ...]) -> int:
    """Rows of the first array; 0 of what has no shape, which is then found not to be plain."""
    shape = getattr(arrays[0], "shape", ())
    return shape[0] if shape else 0


def pointer(c_type: str, array: Array) -> Any:
    """The address of ``array`` as a C pointer that keeps the array alive."""
    return ffi.from_buffer(c_type, array)


def check(status: int, what: str) -> None:
    """Raise what a status of the C core means; the usual 0 costs nothing more."""
    if status == 0:
        return
    message = f"{what}: {ffi.string(lib.lg_strerror(status)).decode()}"
    if status in (lib.LG_ERR_LEVEL_UNKNOWN, lib.LG_ERR_LEVEL_UNSUPPORTED):
        raise MachineError(message)
    raise InputError(message)
