"""Steering: removes from the model's states the directions that fine-tuning added.

Source: "Watch the Weights", arXiv 2508.00161, section on steering. The paper removes one direction
after the other, which leaves a part of the first direction if two are not orthogonal. This module
removes all directions of a state at once, with an orthonormal basis of their span.
"""

import numpy as np

from layerguard.runtime.detectors import SteeringDetector
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.types import Array, Verdict, decision_of

_DEPENDENT = 1e-5
"""Relative singular value below which a direction counts as lying in the span of the others."""


class Steering:
    """The directions that are removed, and the basis for the decode graph.

    Attributes:
        detector: name of the detector whose directions are removed.
        basis: float32 [L, m, hidden], rows orthonormal or zero; None while no direction is
            removed.
    """

    def __init__(self, source: SteeringDetector, blocks: int) -> None:
        self._detector, self._blocks = source, blocks
        self.detector = source.name
        self._removed: set[int] = set()
        self.basis: Array | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the removed directions, such as ``layer 3 down_proj u0``."""
        places = [self._detector.places[direction] for direction in sorted(self._removed)]
        return tuple(f"layer {layer} {name}" for layer, name in places)

    def update(self, pools: Pools) -> bool:
        """Add every direction whose cosine left its calibrated range on the tokens read so far.

        A direction stays removed for the rest of the answer, as in the paper.

        Returns:
            Whether a direction was added.
        """
        extremes = pools.pooled(self._detector.tap)[0][0]
        new = set(self._detector.outside(extremes)) - self._removed
        self._removed |= new
        if new:
            self.basis = self._bases()
        return bool(new)

    def _bases(self) -> Array:
        bases: list[Array] = []
        for block in range(self._blocks):
            mine = [d for d in sorted(self._removed) if self._detector.places[d][0] == block + 1]
            bases.append(orthonormal(self._detector.directions[mine].astype(np.float64)))
        basis = np.zeros((self._blocks, max(map(len, bases)), self._detector.directions.shape[1]))
        for block, rows in enumerate(bases):
            basis[block, : len(rows)] = rows
        return basis.astype(np.float32)


def is_acceptable(verdict: Verdict, detector: str) -> bool:
    """Whether a steered text may be released: no detector other than ``detector`` flags it.

    The detector whose directions are removed counts as not flagged. Under policy ``all`` this
    alone makes the text acceptable, if it is one of the deciding detectors.
    """
    others = {
        name: reading for name, reading in verdict.readings.items() if name not in verdict.shadow
    }
    decides = others.pop(detector, None) is not None
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
