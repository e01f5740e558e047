"""Helpers of all kernel calls: states in place, pointers, and errors from statuses."""

from collections.abc import Callable, Mapping, Sequence
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
    """Call ``attempt`` with the arrays; if it returns None, call it again with plain arrays."""
    result = attempt(arrays)
    if result is None:
        result = attempt(plain(arrays))
    if result is None:
        raise AssertionError("the C core did not accept plain arrays")
    return result


def width_error(arrays: tuple[Any, ...], expected: str) -> InputError:
    """The error for states whose width differs from that of the parameters."""
    return InputError(
        f"found states of width {arrays[0].shape[1]}, expected {expected}: pass the states of the "
        "model that was calibrated"
    )


def counted(layers: Layers, count: int) -> tuple[Any, ...]:
    """The layers as a tuple of ``count`` arrays."""
    arrays = tuple(layers)
    if len(arrays) != count:
        raise InputError(
            f"found {len(arrays)} states, expected {count}: pass the embedding output and the "
            "state after each block, of the model that was calibrated"
        )
    return arrays


def row_count(arrays: tuple[Any, ...]) -> int:
    """Rows of the first array; 0 if it has no shape, in which case C reports it as not plain."""
    shape = getattr(arrays[0], "shape", ())
    return shape[0] if shape else 0


def pointer(c_type: str, array: Array) -> Any:
    """The address of ``array`` as a C pointer that keeps the array alive."""
    return ffi.from_buffer(c_type, array)


def check(status: int, what: str) -> None:
    """Raise the error of a status of the C core; return at once if it is 0."""
    if status == 0:
        return
    message = f"{what}: {ffi.string(lib.lg_strerror(status)).decode()}"
    if status in (lib.LG_ERR_LEVEL_UNKNOWN, lib.LG_ERR_LEVEL_UNSUPPORTED):
        raise MachineError(message)
    raise InputError(message)


def chosen_states(states: Layers | Mapping[int, Array], layers: Sequence[int]) -> tuple[Array, ...]:
    """The states with these numbers.

    Raises:
        InputError: one of them is missing.
    """
    try:
        return tuple([states[layer] for layer in layers])
    except (IndexError, KeyError) as error:
        raise InputError(
            f"found {len(states)} states, expected at least those numbered "
            f"{', '.join(map(str, layers))}: pass the states of the model that was calibrated"
        ) from error


def check_per_token(name: str, array: Array | None, tokens: int) -> None:
    """Refuse an array that does not have one entry for each token of the states.

    Raises:
        InputError: it has another shape.
    """
    if array is not None and array.shape != (tokens,):
        raise InputError(
            f"{name}: found shape {array.shape}, expected {(tokens,)}, one entry for each token of "
            "the states"
        )
