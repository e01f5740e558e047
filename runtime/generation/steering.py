"""Steering: taking out of the model's states what excites a direction that fine-tuning added.

"Watch the Weights", arXiv 2508.00161, section on steering. The publication removes the components
one direction after the other, which leaves some of the first where two are not orthogonal; here
all directions of a state are removed at once, by an orthonormal basis of what they span.
"""

import numpy as np

from layerguard.runtime.detectors import weightwatch
from layerguard.runtime.detectors.weightwatch import WeightWatch
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.types import Array, Verdict, decision_of

_DEPENDENT = 1e-5
"""Of a direction's length: what less than that is new lies in the span of the others."""


class Steering:
    """The directions found so far, and what the decode graph is given to take them out.

    Attributes:
        basis: float32 [L, m, hidden], rows orthonormal or zero; None while there is no direction.
    """

    def __init__(self, watch: WeightWatch, blocks: int) -> None:
        self._watch, self._blocks = watch, blocks
        self._found: set[int] = set()
        self.basis: Array | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What is taken out, such as ``layer 3 down_proj u0``."""
        places = [self._watch.places[direction] for direction in sorted(self._found)]
        return tuple(f"layer {layer} {name}" for layer, name in places)

    def look(self, pools: Pools) -> bool:
        """Take out from now on every direction along which the tokens read leave their ranges.

        One that was found stays out for the rest of the answer, as published.

        Returns:
            whether any was new.
        """
        extremes = pools.of(self._watch.tap)[0][0]
        new = set(self._watch.outside(extremes)) - self._found
        self._found |= new
        if new:
            self.basis = self._bases()
        return bool(new)

    def _bases(self) -> Array:
        bases: list[Array] = []
        for block in range(self._blocks):
            mine = [d for d in sorted(self._found) if self._watch.places[d][0] == block + 1]
            bases.append(orthonormal(self._watch.directions[mine].astype(np.float64)))
        basis = np.zeros((self._blocks, max(map(len, bases)), self._watch.directions.shape[1]))
        for block, rows in enumerate(bases):
            basis[block, : len(rows)] = rows
        return basis.astype(np.float32)


def mended(verdict: Verdict) -> bool:
    """Whether nothing is wrong with a steered text but what steering takes out.

    WeightWatch counts as not flagging: under policy ``all`` that clears the text if it decides.
    """
    others = {
        name: reading for name, reading in verdict.readings.items() if name not in verdict.shadow
    }
    decides = others.pop(weightwatch.NAME, None) is not None
    flagged, _ = decision_of(others.values(), verdict.policy)
    cleared = decides and verdict.policy == "all"
    return verdict.status != "invalid" and (not flagged or cleared)


def orthonormal(rows: Array) -> Array:
    """Orthonormal rows with the span of ``rows``, float64 [n, hidden] -> [rank, hidden]."""
    if not len(rows):
        return rows
    _, lengths, basis = np.linalg.svd(rows, full_matrices=False)
    kept: Array = basis[lengths > _DEPENDENT * lengths[0]]
    return kept
