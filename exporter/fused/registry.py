"""The functions that append a detector's computation to a graph, by detector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from layerguard.exporter.fused import delta, familiarity, lcf, siren, span, weightwatch
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.types import Array, Tap

Params = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class FusedDetector:
    """An entry of the registry.

    Attributes:
        score: (taps, tap, params) -> the name of the value that holds each row's score, float64
            [rows].
        reads_roles: params -> whether the score depends on the roles of tokens.
    """

    score: Callable[[Taps, Tap, Params], str]
    reads_roles: Callable[[Params], bool] = lambda _: False


FUSED = MappingProxyType(
    {
        "delta": FusedDetector(delta.score),
        "familiarity": FusedDetector(familiarity.score),
        "lcf": FusedDetector(lcf.score),
        "siren": FusedDetector(siren.score),
        "agent_siren": FusedDetector(siren.score),
        "span": FusedDetector(span.score),
        "weightwatch": FusedDetector(weightwatch.score, weightwatch.reads_roles),
    }
)
"""By name, as in the runtime's registry."""
