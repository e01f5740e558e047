"""LCF and SIREN of the C guard with parameters given one by one, for tests of their arithmetic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.runtime.kernels import Scorer
from layerguard.runtime.types import Array

CALIBRATED: Mapping[str, Array] = {
    "threshold": np.array(0.0),
    "clean_scores": np.zeros(0),
    "target_fpr": np.array(0.1),
    "fpr_interval": np.array([0.0, 1.0]),
}
"""What every detector holds besides its own parameters."""


_READING = np.dtype(
    [(name, "i4") for name in ("status", "flagged")]
    + [(name, "f8") for name in ("score", "threshold", "p_value", "evidence")]
    + [(name, "i4") for name in ("layer", "place")]
)
_EVIDENCE = np.dtype([("value", "f8"), ("layer", "i4"), ("place", "i4")])


def scored(scorer: Scorer, layers: Any, evidence: int) -> tuple[Array, Array]:
    """What a scorer says as arrays: readings (rows,) and evidence (rows, evidence)."""
    found = scorer.score(layers, evidence)
    entries = np.full((len(found), evidence), np.array((0.0, -1, -1), _EVIDENCE))
    for row, (_, own) in enumerate(found):
        entries[row, : len(own)] = own
    return np.array([reading for reading, _ in found], _READING), entries


class LcfKernel:
    """Scores and z of LCF; the parameters are those of ``lg_lcf``, and sigma."""

    def __init__(self, **parameters: Any) -> None:
        self.params = {
            name: np.asarray(value, np.float32 if name in ("mu", "sigma") else np.float64)
            for name, value in parameters.items()
        }
        self.scorer = Scorer("lcf", {**self.params, **CALIBRATED}, extremes=False)
        self.layer_count = len(self.params["mu"])

    def score(self, layers: Any) -> tuple[Array, Array]:
        """Scores, float64 (rows,), and z, float64 (rows, L): all of the evidence, put in order."""
        readings, evidence = scored(self.scorer, layers, self.layer_count)
        places = np.argsort(evidence["place"], axis=1)
        return readings["score"], np.take_along_axis(evidence["value"], places, axis=1)


class SirenKernel:
    """Scores of SIREN; the parameters are those of ``lg_siren``."""

    def __init__(
        self,
        layers: Any,
        neuron_offsets: Any,
        neurons: Any,
        alpha: Any,
        weights: Sequence[Any],
        biases: Sequence[Any],
    ) -> None:
        self.params: dict[str, Array] = {
            "layers": np.asarray(layers, np.int32),
            "neuron_offsets": np.asarray(neuron_offsets, np.int32),
            "neurons": np.asarray(neurons, np.int32),
            "alpha": np.asarray(alpha, np.float32),
            **{f"weight_{m}": np.asarray(weight, np.float32) for m, weight in enumerate(weights)},
            **{f"bias_{m}": np.asarray(bias, np.float32) for m, bias in enumerate(biases)},
        }
        self.scorer = Scorer("siren", {**self.params, **CALIBRATED}, extremes=False)

    def score(self, layers: Any) -> Array:
        """Scores, float64 (rows,)."""
        scores: Array = scored(self.scorer, layers, 0)[0]["score"]
        return scores
