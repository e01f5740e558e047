"""What a detector is: how it is bound to frozen parameters and how those are checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from layerguard.runtime.kernels import pool_last, pool_mean
from layerguard.runtime.types import Array, Pooling, Reading, Tap

States = Sequence[Array] | Array
"""States of one text: L + 1 arrays [tokens, hidden], or one array [L + 1, tokens, hidden];
float32, float16 or bfloat16."""


POOLS: Mapping[Pooling, Callable[[States, Array | None], Array]] = {
    "last": pool_last,
    "mean": pool_mean,
}
"""By what a tap names: states of one text and its mask -> float32 [L + 1, hidden]."""


class Detector(Protocol):
    """A detector bound to its frozen parameters; safe to call from many threads."""

    @property
    def tap(self) -> Tap:
        """What it reads."""

    def score(
        self, states: States, mask: Array | None = None, roles: Array | None = None
    ) -> Reading:
        """The reading of one text from the states of all its tokens.

        Args:
            states: see ``States``.
            mask: [tokens], true where a token counts; all do where it is None.
            roles: [tokens], index in ``ROLES`` of who said each token; all are the user's where it
                is None. Only WeightWatch asks.

        Raises:
            InputError: layers, width, dtype or layout differ from the calibration's.
        """

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row from what the tap reads.

        L + 1 arrays [rows, hidden]; of extremes one array [rows, 4, 2, K].
        """


@dataclass(frozen=True, slots=True)
class DetectorKind:
    """An entry of the registry.

    Attributes:
        name: key in the registry, in the manifest and in ``detectors.npz``.
        question: what it answers, in a line for people.
        tap: what it reads unless a bundle says otherwise.
        faults: (params, layers, width) -> every way in which params are not fit to be served.
        bind: params, as ``fit`` returned them -> detector. A second argument overrides the tap.
    """

    name: str
    question: str
    tap: Tap
    faults: Callable[[Mapping[str, Array], int, int], list[str]]
    bind: Callable[..., Detector]


def by_name(*kinds: DetectorKind) -> dict[str, DetectorKind]:
    """The kinds by their names.

    Raises:
        ValueError: two of them share a name.
    """
    names = [kind.name for kind in kinds]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"detectors registered twice: {sorted(twice)}; give each its own name")
    return dict(zip(names, kinds, strict=True))
