"""Replays texts with known scores before a guard serves, to detect wrong providers and kernels."""

import math
from collections.abc import Callable
from pathlib import Path

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import Canary, unchecked
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.types import Verdict


def replay_canaries(bundle: Bundle, check: Callable[[str], Verdict]) -> None:
    """Check that the bundle's canaries have their expected scores.

    Raises:
        BundleError: no canary holds the score of some detector, or a score differs, because of a
            wrong provider, kernel or graph.
    """
    faults = [fault for canary in bundle.manifest.canaries for fault in _faults(canary, check)]
    weak = unchecked(bundle.manifest)
    if weak:
        faults.append(
            f"manifest.json: no canary holds the score of {', '.join(weak)}; expected at least one "
            "for each detector, or a wrong graph, provider or kernel is not noticed: calibrate "
            "again, which writes them"
        )
    if faults:
        raise BundleError(Path(bundle.path), faults)


def _faults(canary: Canary, check: Callable[[str], Verdict]) -> list[str]:
    label = f"canary {canary.text[:40]!r}"
    try:
        readings = check(canary.text).readings
    except InputError as error:
        return [f"{label} cannot be checked ({error})"]
    scores = {
        name: readings[name].score if name in readings else math.nan for name in canary.scores
    }
    return [
        f"{label}: {name} scores {scores[name]:.6g} here; expected {expected:.6g} within "
        f"{canary.tolerance:g}. Run `layerguard doctor`; recalibrate if this device is meant to "
        "serve"
        for name, expected in canary.scores.items()
        if not abs(scores[name] - expected) <= canary.tolerance * (1 + abs(expected))
    ]
