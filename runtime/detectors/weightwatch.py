"""WeightWatch: does this text excite a direction that fine-tuning added?

"Watch the Weights", arXiv 2508.00161; float64 oracle in ``tests/reference/weightwatch.py``. Reads
every token of a conversation, at the states after the blocks whose change was decomposed. Each role
has its own ranges, because its tokens move along different directions.
"""

import hashlib

import numpy as np

from layerguard.runtime.checkpoints.places import PARTS
from layerguard.runtime.detectors.bound import BoundDetector, Measure, Params
from layerguard.runtime.detectors.kind import DetectorKind
from layerguard.runtime.kernels import DirectionsKernel
from layerguard.runtime.types import ROLES, Array, Directions, Tap

NAME = "weightwatch"


class WeightWatch(BoundDetector):
    """The bound detector.

    score = max over roles and directions of max(low - least, largest - high) / scale, of the least
    and largest cosine of the role's tokens to the direction.

    Attributes:
        directions: [K, hidden], unit rows.
        places: for each direction the index of its state, and its name.
    """

    def __init__(self, kind: DetectorKind, params: Params, tap: Tap) -> None:
        """Bind the parameters; see ``BoundDetector``."""
        super().__init__(kind.name, params, tap, kind.measure, _directions)
        self.directions = params["directions"]
        self.places = [
            (int(layer), name) for layer, name in zip(params["layers"], _names(params), strict=True)
        ]
        self._ranges = [params[name].astype(np.float64) for name in ("low", "high", "scale")]
        self._threshold = float(params["threshold"])

    def outside(self, extremes: Array) -> list[int]:
        """The directions whose range one row's extremes, [4, 2, K], exceed for any role."""
        low, high, scale = self._ranges
        excess = np.maximum(low - extremes[:, 0], extremes[:, 1] - high) / scale
        numbers: list[int] = np.flatnonzero((excess > self._threshold).any(axis=0)).tolist()
        return numbers


def _directions(params: Params) -> Directions:
    return DirectionsKernel(params["directions"], params["layers"])


def _names(params: Params) -> list[str]:
    """The name of each direction, such as ``down_proj u0``."""
    return [
        f"{PARTS[part]} u{rank}"
        for part, rank in zip(params["parts"], params["ranks"], strict=True)
    ]


def _measure(params: Params) -> Measure:
    """The texts of evidence by place, which is role * K + direction."""
    names = _names(params)

    def words(place: int) -> str:
        role, direction = divmod(place, len(names))
        return f"{names[direction]}, {ROLES[role]}"

    return words


def directions_sha256(params: Params) -> str:
    """Hash of the directions that ranges were measured with, in hex.

    Another machine may compute singular vectors with another sign or rotation, for which the ranges
    are not valid. The hash includes the directions' values and their layers, parts and ranks.
    """
    digest = hashlib.sha256()
    for name in ("directions", "layers", "parts", "ranks"):
        array = np.ascontiguousarray(params[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


KIND = DetectorKind(
    name=NAME,
    question="does this text excite a direction that fine-tuning added?",
    tap=Tap(view="conversation", pooling="extremes"),
    measure=_measure,
    make=WeightWatch,
)
