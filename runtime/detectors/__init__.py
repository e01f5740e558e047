"""The request-time detectors, by name.

``REGISTRY["lcf"].bind(params).score(states)`` scores the states of one text with the parameters
that ``layerguard.calibration.lcf.fit`` returned. A new detector is one module here, one kernel in
``csrc/``, one module in ``layerguard.calibration`` and one entry below.
"""

from types import MappingProxyType

from layerguard.runtime.detectors import lcf, siren, weightwatch
from layerguard.runtime.detectors.kind import Detector, DetectorKind, by_name

__all__ = ["REGISTRY", "Detector", "DetectorKind"]

REGISTRY = MappingProxyType(by_name(lcf.KIND, siren.KIND, siren.AGENT_KIND, weightwatch.KIND))
