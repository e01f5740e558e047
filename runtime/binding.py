"""Binds a bundle's detectors to their parameters, and reads texts of several windows."""

import math

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.backbone import PooledStates
from layerguard.runtime.types import Reading, Tap


def bind_detectors(bundle: Bundle) -> dict[str, Detector]:
    """The bundle's detectors, bound to their parameters, by name.

    Raises:
        BundleError: the parameters of a detector are invalid.
    """
    detectors = {}
    for name, card in bundle.manifest.detectors.items():
        tap = Tap(card.view, card.pooling, card.semantics, card.limit)
        try:
            detectors[name] = REGISTRY[name].bind(bundle.params[name], tap)
        except InputError as error:
            raise BundleError(bundle.path, [f"{name}: {error}; calibrate again"]) from error
    return detectors


def worst_readings(detector: Detector, pooled: PooledStates) -> list[Reading]:
    """The reading of each request's worst window; an invalid reading is worse than any score."""
    tap = detector.tap
    readings = detector.score_pooled(pooled.layers[tap.group])
    return [
        readings[windows[0]]
        if len(windows) == 1
        else max(map(readings.__getitem__, windows), key=_badness)
        for windows in pooled.rows[tap.source]
    ]


def _badness(reading: Reading) -> float:
    return math.inf if reading.status == "invalid" else reading.score
