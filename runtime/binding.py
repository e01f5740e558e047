"""Binds a bundle's detectors to their parameters, and reads texts of several windows."""

from collections.abc import Sequence

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.backbone import PooledStates
from layerguard.runtime.spans import with_words
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import TokenReader
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


def worst_readings(
    detector: Detector,
    pooled: PooledStates,
    requests: Sequence[Request] = (),
    reader: TokenReader | None = None,
) -> list[Reading]:
    """The reading of each request's worst window; an invalid reading is worse than any score.

    Args:
        detector: the detector.
        pooled: the pooled states of some requests.
        requests: those requests, if flagged readings of windows of tokens should give their words.
        reader: the tokenizer that read them.
    """
    tap = detector.tap
    readings = detector.score_pooled(pooled.layers[tap.group])
    rows = pooled.rows[tap.source]
    chosen = [max(own, key=lambda row: readings[row].badness) for own in rows]
    found = [readings[row] for row in chosen]
    if tap.probe is None or reader is None:
        return found
    for i, request in enumerate(requests):
        if found[i].flagged and found[i].status == "ok":
            text, places = reader.places(request, tap.budget)[rows[i].index(chosen[i])]
            windows = pooled.layers[tap.group][0][chosen[i]]
            found[i] = with_words(found[i], tap.probe, windows, text, places)
    return found
