"""The request-time detectors, by name.

``REGISTRY["lcf"].bind(params).score(states)`` scores the states of one text with the parameters
that ``layerguard.calibration.lcf.fit`` returned. A new detector is one module here, one file in
``csrc/detectors/``, one package in ``layerguard.calibration``, one module in
``layerguard.exporter.fused`` and one entry in the registry of each.
"""

from types import MappingProxyType

from layerguard.runtime.detectors import delta, familiarity, lcf, siren, span, weightwatch
from layerguard.runtime.detectors.kind import Detector, DetectorKind, SteeringDetector, by_name

__all__ = ["REGISTRY", "Detector", "DetectorKind", "SteeringDetector"]

REGISTRY = MappingProxyType(
    by_name(
        delta.KIND,
        familiarity.KIND,
        lcf.KIND,
        siren.KIND,
        siren.AGENT_KIND,
        span.KIND,
        weightwatch.KIND,
    )
)
