"""LCF: is this prompt's layer trajectory unlike clean traffic?

Layerwise Convergence Fingerprints, arXiv 2604.24542, section "Method"; float64 oracle in
``tests/reference/lcf.py``. Reads the last token of all L + 1 states.
"""

from collections.abc import Mapping

from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.detectors.kind import POOLS, DetectorKind, States
from layerguard.runtime.detectors.parameters import (
    CALIBRATED,
    Shape,
    array_faults,
    need,
    not_positive,
)
from layerguard.runtime.kernels import LcfKernel
from layerguard.runtime.types import Array, Evidence, Reading, Tap

NAME = "lcf"
TAP = Tap(view="prompt", pooling="last")
EVIDENCE_LAYERS = 5


class Lcf:
    """The bound detector.

    z_l = (||(h_{l+1} - h_l - mu_l) / sigma_l|| - m_l) / s_l, score = sqrt((z - c)' P (z - c)).
    """

    def __init__(self, params: Mapping[str, Array], tap: Tap = TAP) -> None:
        need(NAME, params, _expected(0, 0))
        self.tap = tap
        self._kernel = LcfKernel(
            params["mu"],
            params["sigma"],
            params["score_mean"],
            params["score_scale"],
            params["centre"],
            params["precision"],
        )
        self._threshold = float(params["threshold"])
        self._clean_scores = params["clean_scores"].tolist()

    def score(
        self,
        states: States,
        mask: Array | None = None,
        roles: Array | None = None,  # noqa: ARG002 - who speaks does not matter here
    ) -> Reading:
        """The reading of one text from the states of its tokens; see ``Detector.score``."""
        return self.score_pooled(POOLS[self.tap.pooling](states, mask)[:, None, :])[0]

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row from the last token's states, L + 1 arrays [rows, hidden]."""
        scores, z = self._kernel.score(layers)
        return list(map(self._reading, scores.tolist(), z.tolist()))

    def _reading(self, score: float, z: list[float]) -> Reading:
        top = sorted(enumerate(z, 1), key=_distance)[:EVIDENCE_LAYERS]
        evidence = tuple([Evidence(layer, "z", value) for layer, value in top])
        return decide(NAME, score, self._threshold, self._clean_scores, evidence)


def _distance(layer_z: tuple[int, float]) -> float:
    return -abs(layer_z[1])


def faults(params: Mapping[str, Array], layers: int, width: int) -> list[str]:
    """Every way in which the parameters are not fit for a model of that size."""
    found = array_faults(NAME, params, _expected(layers, width))
    return found + not_positive(NAME, params, ("sigma", "score_scale"))


def _expected(layers: int, width: int) -> dict[str, tuple[str, Shape]]:
    """Dtype and shape of every parameter for a model of that size."""
    return {
        "mu": ("float32", (layers, width)),
        "sigma": ("float32", (layers, width)),
        "score_mean": ("float64", (layers,)),
        "score_scale": ("float64", (layers,)),
        "centre": ("float64", (layers,)),
        "precision": ("float64", (layers, layers)),
        **CALIBRATED,
    }


KIND = DetectorKind(
    name=NAME,
    question="is this prompt's layer trajectory unlike clean traffic?",
    tap=TAP,
    faults=faults,
    bind=Lcf,
)
