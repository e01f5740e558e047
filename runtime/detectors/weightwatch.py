"""WeightWatch: does this text excite a direction that fine-tuning added?

"Watch the Weights", arXiv 2508.00161; float64 oracle in ``tests/reference/weightwatch.py``. Reads
every token of a conversation, at the states after the blocks whose change was decomposed. Each role
has ranges of its own: a served model's words move other directions than its user's.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.detectors.kind import DetectorKind, States
from layerguard.runtime.detectors.parameters import (
    CALIBRATED,
    Shape,
    array_faults,
    need,
    not_positive,
)
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import DirectionsKernel, RangesKernel
from layerguard.runtime.types import ROLES, Array, Evidence, Reading, Tap

NAME = "weightwatch"
TAP = Tap(view="conversation", pooling="extremes")
PARTS = ("down_proj", "o_proj")
"""The matrix of a block whose change a direction is of; its index here is what ``parts`` holds."""

EVIDENCE_DIRECTIONS = 5
_UNIT = 1e-3
"""How far a direction's length may be from 1: float16 rounds each element within 2^-11."""


class WeightWatch:
    """The bound detector.

    score = max over roles and directions of max(low - least, largest - high) / scale, of the least
    and largest cosine of the role's tokens to the direction.

    Attributes:
        directions: [K, hidden], unit rows.
        places: of each direction the state that it is compared with, and its name.
    """

    def __init__(self, params: Mapping[str, Array], tap: Tap = TAP) -> None:
        need(NAME, params, _expected("float32"))
        if tap.pooling != "extremes":
            raise InputError(f"{NAME} reads extremes; found a tap of pooling {tap.pooling}")
        self.directions = params["directions"]
        self._directions = DirectionsKernel(params["directions"], params["layers"])
        self._ranges = RangesKernel(params["low"], params["high"], params["scale"])
        self._limits = [params[name].astype(np.float64) for name in ("low", "high", "scale")]
        self.places = [
            (int(layer), f"{PARTS[part]} u{rank}")
            for layer, part, rank in zip(
                params["layers"], params["parts"], params["ranks"], strict=True
            )
        ]
        self.tap = replace(tap, directions=self._directions)
        self._threshold = float(params["threshold"])
        self._clean_scores = params["clean_scores"].tolist()

    def score(
        self, states: States, mask: Array | None = None, roles: Array | None = None
    ) -> Reading:
        """The reading of one text from the states of its tokens; see ``Detector.score``."""
        extremes = self._directions.extremes(states, mask, roles)
        if np.isinf(extremes[:, 0, 0]).all():
            raise InputError(
                f"{NAME}: found no token that counts; give at least one, and a mask that keeps it"
            )
        return self.score_pooled([extremes[None]])[0]

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row from extremes, one array [rows, 4, 2, K]."""
        extremes = layers[0]
        scores, worst = self._ranges.score(extremes)
        return [
            self._reading(score, place, row)
            for score, place, row in zip(scores.tolist(), worst.tolist(), extremes, strict=True)
        ]

    def _reading(self, score: float, worst: int, extremes: Array) -> Reading:
        """One row's reading; all that lies farthest outside costs more than the score itself."""
        found = {worst: score}
        if score > self._threshold:
            excess = self._excess(extremes)
            top = np.argsort(-excess, axis=None, kind="stable")[:EVIDENCE_DIRECTIONS].tolist()
            found |= {place: value for place in top if (value := float(excess.flat[place])) > 0}
        evidence = [self._evidence(*item) for item in found.items()] if math.isfinite(score) else ()
        return decide(NAME, score, self._threshold, self._clean_scores, tuple(evidence))

    def outside(self, extremes: Array) -> list[int]:
        """The directions that one row's extremes, [4, 2, K], leave the range of any role along."""
        found: list[int] = np.flatnonzero(
            (self._excess(extremes) > self._threshold).any(axis=0)
        ).tolist()
        return found

    def _excess(self, extremes: Array) -> Array:
        """How far outside its range each role's cosines are, float64 [4, K].

        Minus infinity where the role has no tokens.
        """
        low, high, scale = self._limits
        excess: Array = np.maximum(low - extremes[:, 0], extremes[:, 1] - high) / scale
        return excess

    def _evidence(self, place: int, excess: float) -> Evidence:
        """What lies at role * K + direction."""
        role, direction = divmod(place, len(self.places))
        layer, name = self.places[direction]
        return Evidence(layer, f"{name}, {ROLES[role]}", excess)


def directions_sha256(params: Mapping[str, Array]) -> str:
    """What binds ranges to the directions that they were measured with, in hex.

    Singular vectors may come out with another sign, or turned, from another machine: ranges mean
    nothing beside them. Takes in the directions' values and what each is of.
    """
    digest = hashlib.sha256()
    for name in ("directions", "layers", "parts", "ranks"):
        array = np.ascontiguousarray(params[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def faults(params: Mapping[str, Array], layers: int, width: int) -> list[str]:
    """Every way in which the parameters are not fit for a model of that size."""
    directions = params.get("directions")
    dtype = "float16" if directions is not None and directions.dtype == np.float16 else "float32"
    count = len(directions) if directions is not None and directions.ndim else None
    found = array_faults(NAME, params, _expected(dtype, count, width))
    return found or _value_faults(params, layers) + not_positive(NAME, params, ("scale",))


def _expected(
    dtype: str, count: int | None = None, width: int | None = None
) -> dict[str, tuple[str, Shape]]:
    """Dtype and shape of every parameter for that many directions."""
    return {
        "directions": (dtype, (count, width)),
        "layers": ("int32", (count,)),
        "parts": ("uint8", (count,)),
        "ranks": ("int32", (count,)),
        "singular_values": ("float32", (count,)),
        "low": ("float32", (len(ROLES), count)),
        "high": ("float32", (len(ROLES), count)),
        "scale": ("float32", (len(ROLES), count)),
        "roles_seen": ("bool", (len(ROLES),)),
        **CALIBRATED,
    }


def _value_faults(params: Mapping[str, Array], layers: int) -> list[str]:
    """Values that cannot be true of arrays of the right shapes."""
    states, parts, ranks = params["layers"], params["parts"], params["ranks"]
    if not len(states):
        return [f"{NAME}/directions is empty; expected at least one direction"]
    lengths = np.linalg.norm(params["directions"].astype(np.float64), axis=1)
    farthest = float(lengths[np.abs(lengths - 1).argmax()])
    order = list(zip(states.tolist(), parts.tolist(), ranks.tolist(), strict=True))
    checks = (
        (abs(farthest - 1) <= _UNIT, f"directions has a row of length {farthest:.6g}; expected 1"),
        (
            states.min() >= 1 and states.max() <= layers,
            f"layers is {states.min()} to {states.max()}; expected states within 1..{layers}",
        ),
        (
            parts.max() < len(PARTS),
            f"parts has {parts.max()}; expected 0 ({PARTS[0]}) or 1 ({PARTS[1]})",
        ),
        (ranks.min() >= 0, f"ranks has {ranks.min()}; expected 0 or more"),
        (
            order == sorted(set(order)),
            "directions are not in the order of layers, parts and ranks, each once",
        ),
        ((params["low"] <= params["high"]).all(), "low is above high; expected ranges"),
    )
    return [f"{NAME}/{fault}" for good, fault in checks if not good]


KIND = DetectorKind(
    name=NAME,
    question="does this text excite a direction that fine-tuning added?",
    tap=TAP,
    faults=faults,
    bind=WeightWatch,
)
