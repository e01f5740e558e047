"""The proof of a graph: how far each of its outputs is from PyTorch in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.exporter.proof.tolerance import TOLERANCES, Dtype
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """How far a graph is from PyTorch in float64, by output name.

    Attributes:
        largest: max over vectors of max |graph - float64| / max |float64|. It is relative to the
            largest element of each vector, because trained models have channels in the thousands
            beside others near one, and the largest element of a sum determines its rounding.
        rounding: the same of PyTorch in float32.
        cosine_distance: max over vectors of 1 - cos(graph, float64).
        shapes: number of compared batches.
    """

    largest: Mapping[str, float]
    rounding: Mapping[str, float]
    cosine_distance: Mapping[str, float]
    shapes: int

    def measured(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, the measure that the tolerance of this precision is for."""
        return self.largest if TOLERANCES[dtype].measure == "difference" else self.cosine_distance

    def allowed(self, dtype: Dtype) -> Mapping[str, float]:
        """By output name, what that measure may be."""
        tolerance = TOLERANCES[dtype]
        return {name: tolerance.allowed(rounding) for name, rounding in self.rounding.items()}

    def check(self, dtype: Dtype) -> None:
        """Raise unless every output is within the tolerance of this precision.

        Raises:
            ExportError: an output exceeds its tolerance, or is not finite.
        """
        measured, allowed = self.measured(dtype), self.allowed(dtype)
        excess = {name: value / allowed[name] for name, value in measured.items()}
        beyond = [name for name, share in excess.items() if not share <= 1]
        if beyond:
            worst = max(beyond, key=lambda name: np.nan_to_num(excess[name], nan=np.inf))
            raise ExportError(
                f"the {dtype} graph differs from the model: {len(beyond)} of {len(measured)} "
                f"outputs exceed the tolerance, first {beyond[0]}, most {worst} with "
                f"{TOLERANCES[dtype].measure.replace('_', ' ')} {measured[worst]:.3g}; expected at "
                f"most {allowed[worst]:.3g}{self._comment(dtype, worst)}. "
                + (
                    "Try another version of torch or transformers, and report the model"
                    if dtype == "float32"
                    else "Try --dtype float32: this model loses too much in lower precision"
                )
            )

    def _comment(self, dtype: Dtype, name: str) -> str:
        if TOLERANCES[dtype].measure != "difference":
            return ""
        return f" (PyTorch's own float32 rounding is {self.rounding[name]:.3g})"


class Differences:
    """Collects the largest differences by output name, batch by batch."""

    def __init__(self, names: Sequence[str]) -> None:
        self._largest = dict.fromkeys(names, 0.0)
        self._rounding = dict.fromkeys(names, 0.0)
        self._distance = dict.fromkeys(names, 0.0)

    def add(self, name: str, values: Array, exact: Array, rounded: Array) -> None:
        """Add vectors of one output, along the last axis.

        Args:
            name: of the output.
            values: from the graph.
            exact: from PyTorch in float64.
            rounded: from PyTorch in float32.
        """
        values = values.astype(np.float64)
        with np.errstate(invalid="ignore"):  # values that are not finite become NaN
            measured = (
                (self._largest, _difference(values, exact)),
                (self._rounding, _difference(rounded, exact)),
                (self._distance, _cosine_distance(values, exact)),
            )
        for largest, value in measured:
            # np.maximum keeps NaN; max may drop it
            largest[name] = float(np.maximum(largest[name], value))

    def proof(self, shapes: int) -> Proof:
        """The proof over this number of batches."""
        return Proof(self._largest, self._rounding, self._distance, shapes)


def _difference(values: Array, exact: Array) -> float:
    """Largest difference of a vector over its largest element; 0 for two zero vectors."""
    apart, scale = np.abs(values - exact).max(-1), np.abs(exact).max(-1)
    return float(np.where(apart == 0, 0.0, apart / np.where(scale > 0, scale, 1)).max())


def _cosine_distance(values: Array, exact: Array) -> float:
    product = (values * exact).sum(-1)
    norms = np.linalg.norm(values, axis=-1) * np.linalg.norm(exact, axis=-1)
    # the distance of two zero vectors is 0, that of a zero vector and another is 1
    cosine = np.where(norms > 0, product / np.where(norms > 0, norms, 1), (values == exact).all(-1))
    return float(np.maximum(0, 1 - cosine).max())
