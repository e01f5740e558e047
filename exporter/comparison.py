"""How far a graph may be from PyTorch, and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array

Dtype = Literal["float32", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Gate:
    """The measure that decides for one precision, and its limit."""

    measure: Literal["difference", "cosine_distance"]
    limit: float


GATES: Mapping[Dtype, Gate] = {
    "float32": Gate("difference", 1e-4),
    "float16": Gate("cosine_distance", 1e-3),
    "int8": Gate("cosine_distance", 0.1),
}
"""float32 is held to each value. Rounding to 11 or 8 bits moves single values by more than that, so
the others are held to the direction of each vector. Measured on all-MiniLM-L6-v2, random tokens:
difference 5e-6, cosine distance 3e-6 in float16 and 0.07 in int8."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How far graph and reference are apart, by output name.

    Attributes:
        largest: max |graph - eager| / max(1, |eager|) over all values: absolute up to one,
            relative above, because float32 keeps seven digits however large a state is.
        cosine_distance: max 1 - cos(graph, eager) over all vectors.
        shapes: how many batches were compared.
    """

    largest: Mapping[str, float]
    cosine_distance: Mapping[str, float]
    shapes: int

    def decisive(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, the measure that the gate of this precision looks at."""
        return self.largest if GATES[dtype].measure == "difference" else self.cosine_distance

    def decide(self, dtype: Dtype) -> None:
        """Pass, or raise.

        Raises:
            ExportError: an output is beyond the limit for its precision, or not finite.
        """
        gate = GATES[dtype]
        by_output = self.decisive(dtype)
        beyond = [name for name, value in by_output.items() if not value <= gate.limit]
        if beyond:
            worst = max(beyond, key=lambda name: np.nan_to_num(by_output[name], nan=np.inf))
            raise ExportError(
                f"the {dtype} graph is not the model: {len(beyond)} of {len(by_output)} outputs "
                f"differ from PyTorch, first {beyond[0]}, most {worst} with "
                f"{gate.measure.replace('_', ' ')} {by_output[worst]:.3g}; expected at most "
                f"{gate.limit:g}. "
                + (
                    "Try another version of torch or transformers, and report the model"
                    if dtype == "float32"
                    else "Try --dtype float32: this model's states do not fit a coarser one"
                )
            )


class Differences:
    """The largest differences so far, by output name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._largest = dict.fromkeys(names, 0.0)
        self._distance = dict.fromkeys(names, 0.0)

    def add(self, name: str, mine: Array, theirs: Array) -> None:
        """Take in vectors of an output, ``mine`` of the graph and ``theirs`` of the reference."""
        mine = mine.astype(np.float64)
        # np.maximum, unlike max, lets a NaN through to the gate
        for largest, measure in (
            (self._largest, _difference), (self._distance, _cosine_distance)
        ):  # fmt: skip
            largest[name] = float(np.maximum(largest[name], measure(mine, theirs)))

    def comparison(self, shapes: int) -> Comparison:
        """What was found over so many batches."""
        return Comparison(self._largest, self._distance, shapes)


def _difference(mine: Array, theirs: Array) -> float:
    return float((np.abs(mine - theirs) / np.maximum(1, np.abs(theirs))).max())


def _cosine_distance(mine: Array, theirs: Array) -> float:
    product = (mine * theirs).sum(-1)
    norms = np.linalg.norm(mine, axis=-1) * np.linalg.norm(theirs, axis=-1)
    # two zero vectors agree; one alone does not
    cosine = np.where(norms > 0, product / np.where(norms > 0, norms, 1), (mine == theirs).all(-1))
    return float(np.maximum(0, 1 - cosine).max())
