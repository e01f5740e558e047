"""Checks of the frozen arrays of the whole guard: names, dtypes, shapes, finiteness.

The arrays of detectors are checked by C (``csrc/detectors/parameters.c``).
"""

from collections.abc import Mapping

import numpy as np

from layerguard.runtime.types import Array

Shape = tuple[int | None, ...]
"""Expected shape; None stands for any length."""


def array_faults(
    group: str, params: Mapping[str, Array], expected: Mapping[str, tuple[str, Shape]]
) -> list[str]:
    """Every array that is missing, unknown, of another dtype or shape, or not finite."""
    faults = [f"{group}/{name} is unknown" for name in params if name not in expected]
    for name, (dtype, shape) in expected.items():
        array = params.get(name)
        if array is None:
            faults.append(f"{group}/{name} is missing; expected {dtype} {_sides(shape)}")
        elif array.dtype.name != dtype or not _fits(array.shape, shape):
            faults.append(
                f"{group}/{name} is {array.dtype} {_sides(array.shape)}; "
                f"expected {dtype} {_sides(shape)}"
            )
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            faults.append(f"{group}/{name} has {count} values that are not finite")
    return faults


def not_positive(group: str, params: Mapping[str, Array], names: tuple[str, ...]) -> list[str]:
    """A fault for each named array that has a value of zero or less."""
    return [
        f"{group}/{name} has values of zero or less; expected positive scales"
        for name in names
        if name in params and not (params[name] > 0).all()
    ]


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        side in (None, length) for length, side in zip(shape, expected, strict=True)
    )


def _sides(shape: Shape) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
