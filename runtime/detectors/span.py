"""span: where in this text is an injected instruction?

A linear probe on every token's state after a few blocks gives a logit; the score is the largest
mean of ``window`` neighbouring logits, and the evidence is that window. Unlike a mean over all
tokens, a long text does not dilute it. Float64 oracle in ``tests/reference/span.py``.
"""

from layerguard.runtime.detectors.bound import BoundDetector, Params
from layerguard.runtime.detectors.kind import DetectorKind
from layerguard.runtime.kernels import ProbeKernel
from layerguard.runtime.types import Probe, Tap


def _probe(params: Params) -> Probe:
    return ProbeKernel(
        params["weights"], params["layers"], float(params["bias"]), int(params["window"])
    )


KIND = DetectorKind(
    name="span",
    question="where in this text is an injected instruction?",
    tap=Tap(view="content", pooling="window"),
    measure=lambda _: lambda place: f"mean logit from token {place}",
    make=lambda kind, params, tap: BoundDetector(
        kind.name, params, tap, kind.measure, probe=_probe
    ),
)
