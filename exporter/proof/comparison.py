"""How far a graph may be from PyTorch, and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array

Dtype = Literal["float32", "float16", "int8"]


_LEAST_DIFFERENCE = 1e-5
"""Allowed wherever PyTorch itself rounds less: 84 units in the last place of float32, which sums of
some thousand products may differ by when their order changes."""

TIMES_ROUNDING = 20
"""How much more than PyTorch's own float32 a correct graph may differ from float64. Measured on
SmolLM2-135M-Instruct: fused attention in PyTorch 2.8 times, the exported graphs at most 5.1 times;
one weight matrix off by 1 % at least 170 times, in the outputs behind that layer."""


_MOST_DIFFERENCE = 1e-3
"""Never allowed, however much PyTorch rounds: then no comparison could tell a wrong graph."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The measure that decides for one precision, and the limit that it always allows."""

    measure: Literal["difference", "cosine_distance"]
    limit: float


GATES: Mapping[Dtype, Gate] = {
    "float32": Gate("difference", _LEAST_DIFFERENCE),
    "float16": Gate("cosine_distance", 1e-3),
    "int8": Gate("cosine_distance", 0.1),
}
"""float32 is held to each vector's largest value and to PyTorch's own rounding. Rounding to 11 or 8
bits moves single values by more than that, so the others are held to the direction of each vector.
Measured on all-MiniLM-L6-v2, random tokens: cosine distance 3e-6 in float16 and 0.07 in int8."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How far a graph is from PyTorch in float64, by output name.

    Attributes:
        largest: max over vectors of max |graph - float64| / max |float64|: relative to the largest
            element of each vector, because trained models have channels in the thousands beside
            others near one, and rounding is as large as the largest that takes part in a sum.
        rounding: the same of PyTorch in float32.
        cosine_distance: max over vectors of 1 - cos(graph, float64).
        shapes: how many batches were compared.
    """

    largest: Mapping[str, float]
    rounding: Mapping[str, float]
    cosine_distance: Mapping[str, float]
    shapes: int

    def decisive(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, the measure that the gate of this precision looks at."""
        return self.largest if GATES[dtype].measure == "difference" else self.cosine_distance

    def allowed(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, what that measure may be."""
        gate = GATES[dtype]
        if gate.measure == "cosine_distance":
            return dict.fromkeys(self.cosine_distance, gate.limit)
        return {
            name: float(np.clip(TIMES_ROUNDING * value, gate.limit, _MOST_DIFFERENCE))
            if np.isfinite(value)
            else gate.limit
            for name, value in self.rounding.items()
        }

    def decide(self, dtype: Dtype) -> None:
        """Pass, or raise.

        Raises:
            ExportError: an output is beyond what its precision allows, or not finite.
        """
        found, allowed = self.decisive(dtype), self.allowed(dtype)
        excess = {name: value / allowed[name] for name, value in found.items()}
        beyond = [name for name, share in excess.items() if not share <= 1]
        if beyond:
            worst = max(beyond, key=lambda name: np.nan_to_num(excess[name], nan=np.inf))
            raise ExportError(
                f"the {dtype} graph is not the model: {len(beyond)} of {len(found)} outputs "
                f"differ from PyTorch, first {beyond[0]}, most {worst} with "
                f"{GATES[dtype].measure.replace('_', ' ')} {found[worst]:.3g}; expected at most "
                f"{allowed[worst]:.3g}{self._why(dtype, worst)}. "
                + (
                    "Try another version of torch or transformers, and report the model"
                    if dtype == "float32"
                    else "Try --dtype float32: this model's states do not fit a coarser one"
                )
            )

    def _why(self, dtype: Dtype, name: str) -> str:
        if GATES[dtype].measure != "difference":
            return ""
        return f", where PyTorch's own float32 rounding is {self.rounding[name]:.3g}"


class Differences:
    """The largest differences so far, by output name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._largest = dict.fromkeys(names, 0.0)
        self._rounding = dict.fromkeys(names, 0.0)
        self._distance = dict.fromkeys(names, 0.0)

    def add(self, name: str, found: Array, exact: Array, rounded: Array) -> None:
        """Take in vectors of an output, along the last axis.

        Args:
            name: of the output.
            found: what the graph gave.
            exact: what PyTorch gives in float64.
            rounded: what PyTorch gives in float32.
        """
        found = found.astype(np.float64)
        with np.errstate(invalid="ignore"):  # what is not finite becomes NaN
            measured = (
                (self._largest, _difference(found, exact)),
                (self._rounding, _difference(rounded, exact)),
                (self._distance, _cosine_distance(found, exact)),
            )
        for largest, value in measured:
            # np.maximum, unlike max, lets a NaN through to the gate
            largest[name] = float(np.maximum(largest[name], value))

    def comparison(self, shapes: int) -> Comparison:
        """What was found over so many batches."""
        return Comparison(self._largest, self._rounding, self._distance, shapes)


def _difference(values: Array, exact: Array) -> float:
    """The largest difference of a vector over its largest element; two zero vectors agree."""
    apart, scale = np.abs(values - exact).max(-1), np.abs(exact).max(-1)
    return float(np.where(apart == 0, 0.0, apart / np.where(scale > 0, scale, 1)).max())


def _cosine_distance(found: Array, exact: Array) -> float:
    product = (found * exact).sum(-1)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(exact, axis=-1)
    # two zero vectors agree; one alone does not
    cosine = np.where(norms > 0, product / np.where(norms > 0, norms, 1), (found == exact).all(-1))
    return float(np.maximum(0, 1 - cosine).max())
