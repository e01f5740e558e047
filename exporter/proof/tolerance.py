"""How far the outputs of a graph may be from PyTorch in float64, by precision of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Dtype = Literal["float32", "float16", "int8"]

_LEAST_DIFFERENCE = 1e-5
"""Always allowed: 84 units in the last place of float32, by which sums of some thousand products
may differ when their order changes."""

TIMES_ROUNDING = 20
"""How many times the rounding of PyTorch's own float32 run a correct graph may differ from float64.
Measured on SmolLM2-135M-Instruct: fused attention in PyTorch 2.8 times, exported graphs at most 5.1
times; one weight matrix that is off by 1 %, at least 170 times in the outputs after that layer."""

_MOST_DIFFERENCE = 1e-3
"""Never exceeded, however much PyTorch rounds: a larger value would accept wrong graphs."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The tolerance of one precision.

    Attributes:
        measure: what is compared with the tolerance.
        value: what that measure may be in any case.
    """

    measure: Literal["difference", "cosine_distance"]
    value: float

    def allowed(self, rounding: float) -> float:
        """What the measure of an output may be.

        Args:
            rounding: difference of PyTorch's float32 run from its float64 run for that output.
        """
        if self.measure == "cosine_distance" or not np.isfinite(rounding):
            return self.value
        return float(np.clip(TIMES_ROUNDING * rounding, self.value, _MOST_DIFFERENCE))


TOLERANCES: Mapping[Dtype, Tolerance] = {
    "float32": Tolerance("difference", _LEAST_DIFFERENCE),
    "float16": Tolerance("cosine_distance", 1e-3),
    "int8": Tolerance("cosine_distance", 0.1),
}
"""float32 is compared by each vector's largest element. Rounding to 11 or 8 bits changes single
elements by more than that; float16 and int8 are therefore compared by each vector's direction.
Measured on all-MiniLM-L6-v2 with random tokens: cosine distance 3e-6 in float16, 0.07 in int8."""
