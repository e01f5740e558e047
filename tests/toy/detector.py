"""The Python part of the toy detector: its tap, its calibrator and its ONNX operators."""

import sys
from collections.abc import Mapping

import numpy as np

from layerguard.calibration import registry as calibration
from layerguard.calibration.calibrator import Calibrator, Fit
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.exporter.fused import registry as fused
from layerguard.exporter.fused.nodes import DOUBLE
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime import detectors
from layerguard.runtime.detectors.kind import DetectorKind, always
from layerguard.runtime.types import Array, Tap

LAYER = 2

KIND = DetectorKind(
    name="toy",
    question="is the last token's state far from where it usually is?",
    tap=Tap(view="prompt", pooling="last"),
    measure=always("distance"),
)


def train(recorded: RecordedStates[States]) -> FittedParameters:
    """Fit the centre to last tokens' states; a real detector would score held-out rows."""
    states = recorded.states.layer(LAYER)
    centre = states.mean(axis=0).astype(np.float32)
    scores = np.abs(states - centre).mean(axis=1).astype(np.float64)
    return FittedParameters({"layer": np.array(LAYER, np.int32), "centre": centre}, scores, {})


CALIBRATOR = Calibrator(
    name="toy",
    rows="clean",
    applies=lambda inputs: bool(inputs.clean),
    prepare=lambda _: Fit(KIND.tap, "toy", train),
)


def score(taps: Taps, tap: Tap, params: Mapping[str, Array]) -> str:
    """The mean distance of each row, float64 [rows]."""
    add = taps.nodes.add
    (state,) = taps.pooled(tap, [int(params["layer"])])
    distance = add("Abs", add("Sub", state, taps.nodes.constant(params["centre"])))
    return taps.nodes.cast(add("ReduceMean", distance, taps.nodes.axes(1), keepdims=0), DOUBLE)


def register() -> None:
    """Add it to the three Python registries, as a line in each of them would."""
    _replace(detectors.REGISTRY, {**detectors.REGISTRY, KIND.name: KIND})
    _replace(fused.FUSED, {**fused.FUSED, KIND.name: fused.FusedDetector(score)})
    _replace(calibration.CALIBRATORS, (*calibration.CALIBRATORS, CALIBRATOR))


def _replace(old: object, new: object) -> None:
    """Replace the registry in every module that imported it."""
    for module in list(sys.modules.values()):
        for name in ("REGISTRY", "FUSED", "CALIBRATORS"):
            if getattr(module, name, None) is old:
                setattr(module, name, new)
