"""Checks of frozen parameters that all detectors share: names, dtypes, shapes, finiteness."""

from collections.abc import Iterable, Mapping

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

Shape = tuple[int | None, ...]
"""Expected sides; None where any length will do."""

CALIBRATED: Mapping[str, tuple[str, Shape]] = {
    "threshold": ("float64", ()),
    "clean_scores": ("float64", (None,)),
    "target_fpr": ("float64", ()),
    "fpr_interval": ("float64", (2,)),
}
"""What every calibrated detector holds besides its own parameters."""


def array_faults(
    detector: str, params: Mapping[str, Array], expected: Mapping[str, tuple[str, Shape]]
) -> list[str]:
    """Every array that is missing, unknown, of another dtype or shape, or not finite."""
    faults = [f"{detector}/{name} is unknown" for name in params if name not in expected]
    for name, (dtype, shape) in expected.items():
        array = params.get(name)
        if array is None:
            faults.append(f"{detector}/{name} is missing; expected {dtype} {_sides(shape)}")
        elif array.dtype.name != dtype or not _fits(array.shape, shape):
            faults.append(
                f"{detector}/{name} is {array.dtype} {_sides(array.shape)}; "
                f"expected {dtype} {_sides(shape)}"
            )
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            faults.append(f"{detector}/{name} has {count} values that are not finite")
    scores = params.get("clean_scores")
    if scores is not None and scores.ndim == 1 and (np.diff(scores) < 0).any():
        faults.append(f"{detector}/clean_scores is not sorted; expected ascending scores")
    return faults


def need(detector: str, params: Mapping[str, Array], names: Iterable[str]) -> None:
    """Refuse parameters that lack one of the named arrays.

    Raises:
        InputError: naming those that are missing.
    """
    missing = sorted(set(names) - params.keys())
    if missing:
        raise InputError(
            f"{detector}: the parameters lack {', '.join(missing)}; expected what its fit returned"
        )


def not_positive(detector: str, params: Mapping[str, Array], names: tuple[str, ...]) -> list[str]:
    """A fault for each of the named arrays that holds a value of zero or less."""
    return [
        f"{detector}/{name} has values of zero or less; expected positive scales"
        for name in names
        if name in params and not (params[name] > 0).all()
    ]


def _fits(found: tuple[int, ...], expected: Shape) -> bool:
    return len(found) == len(expected) and all(
        side in (None, length) for length, side in zip(found, expected, strict=True)
    )


def _sides(shape: Shape) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
