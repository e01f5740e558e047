"""The Python part of a detector: its question, its tap and the texts of its evidence.

C implements its parameters, score and evidence (``csrc/detectors/``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from layerguard.runtime.detectors.bound import BoundDetector, Measure, Params, States
from layerguard.runtime.kernels import parameter_faults
from layerguard.runtime.types import Array, Reading, Tap


class Detector(Protocol):
    """A detector bound to its frozen parameters; thread-safe."""

    @property
    def tap(self) -> Tap:
        """What it reads."""

    def score(
        self, states: States, mask: Array | None = None, roles: Array | None = None
    ) -> Reading:
        """The reading of one text from the states of all its tokens.

        Args:
            states: see ``States``.
            mask: [tokens], False where a token is ignored; None: no token is.
            roles: [tokens], index in ``ROLES`` of each token's author; None: all are the user's.
                Used only by detectors that read extremes.

        Raises:
            InputError: layers, width, dtype or layout differ from the calibration's.
        """

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row of pooled input.

        Args:
            layers: L + 1 arrays [rows, hidden]; for extremes one array [rows, 4, 2, K], for
                windows and added lengths one array [rows, K].
        """


@runtime_checkable
class SteeringDetector(Detector, Protocol):
    """A detector of directions that steering can remove from a model's states.

    Attributes:
        name: name of the detector.
        directions: [K, hidden], unit rows.
        places: for each direction the index of its state, and its name.
    """

    name: str
    directions: Array
    places: list[tuple[int, str]]

    def outside(self, extremes: Array) -> list[int]:
        """The directions whose range one row's extremes, [4, 2, K], exceed for any role."""


def always(word: str) -> Callable[[Params], Measure]:
    """A ``measure`` that is the same word for every entry of evidence."""
    return lambda _: lambda _: word


def _plain(kind: "DetectorKind", params: Params, tap: Tap) -> Detector:
    return BoundDetector(kind.name, params, tap, kind.measure)


@dataclass(frozen=True, slots=True)
class DetectorKind:
    """An entry of the registry.

    Attributes:
        name: key in the registry, in the manifest, in ``detectors.npz`` and in C.
        question: the question that it answers, in one line.
        tap: what it reads unless the bundle overrides it.
        measure: params -> the texts of its evidence.
        make: kind, params, tap -> the bound detector.
        decides: whether it may decide; one that does not says how unfamiliar a text is.
    """

    name: str
    question: str
    tap: Tap
    measure: Callable[[Params], Measure]
    make: Callable[["DetectorKind", Params, Tap], Detector] = _plain
    decides: bool = True

    def faults(self, params: Params, layers: int, width: int) -> list[str]:
        """Every fault of the parameters for a model of this size."""
        return parameter_faults(self.name, params, layers, width)

    def bind(self, params: Params, tap: Tap | None = None) -> Detector:
        """The detector with these parameters, as ``fit`` returned them.

        Args:
            params: by name; they are copied.
            tap: what it reads; None: the kind's tap.

        Raises:
            InputError: parameters are missing or invalid; every fault is listed.
        """
        return self.make(self, params, tap or self.tap)


def by_name(*kinds: DetectorKind) -> Mapping[str, DetectorKind]:
    """The kinds by name.

    Raises:
        ValueError: two of them share a name.
    """
    names = [kind.name for kind in kinds]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"detectors registered twice: {sorted(twice)}; give each its own name")
    return dict(zip(names, kinds, strict=True))
