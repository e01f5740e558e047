"""Known texts, replayed before a guard serves: a wrong provider or a broken kernel shows here."""

import math
from collections.abc import Callable
from pathlib import Path

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import Canary
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.types import Verdict

_TRIAL = Canary("a quiet garden", {}, 0.0)
"""Stands in for the canaries of a bundle that has none, so that its graph has run once."""


def replay_canaries(bundle: Bundle, check: Callable[[str], Verdict]) -> None:
    """Check the bundle's known texts.

    Raises:
        BundleError: a wrong provider, a broken kernel or another graph gives other scores.
    """
    faults = [
        fault
        for canary in bundle.manifest.canaries or (_TRIAL,)
        for fault in _faults(canary, check)
    ]
    if faults:
        raise BundleError(Path(bundle.path), faults)


def _faults(canary: Canary, check: Callable[[str], Verdict]) -> list[str]:
    name_of_text = f"canary {canary.text[:40]!r}"
    try:
        readings = check(canary.text).readings
    except InputError as error:
        return [f"{name_of_text} cannot be checked ({error})"]
    found = {name: readings[name].score if name in readings else math.nan for name in canary.scores}
    return [
        f"{name_of_text}: {name} scores {found[name]:.6g} here; expected {expected:.6g} within "
        f"{canary.tolerance:g}. Run `layerguard doctor`; recalibrate for this device if it is "
        "meant to serve"
        for name, expected in canary.scores.items()
        if not abs(found[name] - expected) <= canary.tolerance * (1 + abs(expected))
    ]
