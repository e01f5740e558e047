"""The detectors that the settings name, against those of the bundles."""

from collections.abc import Mapping

from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.server.config import WHOLE_GUARD, Config


def need_detectors(config: Config, guards: Mapping[str, Guard]) -> None:
    """Refuse settings with a detector that none of the bundles has.

    Raises:
        InputError: they name one; the message has all of them.
    """
    known = list(dict.fromkeys(n for g in guards.values() for n in g.bundle.manifest.detectors))
    named = [("guard.detector_modes", name) for name in config.guard.detector_modes]
    named += [
        (f"contracts.categories.{category}", name)
        for category, name in config.contracts.categories.items()
        if name != WHOLE_GUARD
    ]
    faults = [
        f"{where}: found {name!r}; expected a detector of the bundles: {', '.join(known)}"
        for where, name in named
        if name not in known
    ]
    if faults:
        raise InputError("; ".join(faults))
