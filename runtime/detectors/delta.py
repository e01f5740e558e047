"""delta: does what fine-tuning changed act more on this text than on normal text?

Fine-tuning adds dW to a matrix W, whose input at token t is v_t. For each changed matrix the graph
gives ln |dW v_t| at every token; x_k is the largest of the prompt's tokens. The score is the
largest over the matrices, in deviations from the calibration texts: max_k (x_k - centre_k) /
scale_k. It is not finite if any x_k is not. Float64 oracle in ``tests/reference/delta.py``.

The inputs of the matrices are not part of the states, so that only the graph can compute x.
"""

from layerguard.runtime.checkpoints.places import PARTS
from layerguard.runtime.detectors.bound import BoundDetector, Measure, Params
from layerguard.runtime.detectors.kind import DetectorKind
from layerguard.runtime.types import ADDED, Tap


def _measure(params: Params) -> Measure:
    """The texts of evidence by place, the number of the matrix."""
    names = [f"{PARTS[part]}, added" for part in params["parts"]]
    return names.__getitem__


KIND = DetectorKind(
    name="delta",
    question="does what fine-tuning changed act more on this text than on normal text?",
    tap=Tap(view="prompt", pooling=ADDED),
    measure=_measure,
    make=lambda kind, params, tap: BoundDetector(
        kind.name, params, tap, kind.measure, reads_added=True
    ),
)
