"""What of the manifest ``detectors.npz`` repeats, for programs that read nothing else.

``lg_open`` (``csrc/layerguard_api.h``) knows no manifest. These arrays tell it which view of a text
each detector was calibrated on, how it pools the tokens, the model's size, and who decides. They
have an entry for each detector, in the order of their names. Bundles frozen before there were any
load as they did.
"""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.manifest import Manifest
from layerguard.runtime.types import Array, Pooling, View

SERVING = "serving"
"""Prefix of its arrays in ``detectors.npz``; no detector may be called so."""


def serving_arrays(manifest: Manifest) -> dict[str, Array]:
    """The arrays, by name.

    views, poolings: uint8 [detectors], an index into the values of ``View`` and ``Pooling``.
    final_norm: bool [detectors], whether the last state is the one after the final norm.
    model: int32 [2], layers and width.
    And, where there is a decision, what ``_policy`` says.
    """
    cards = [manifest.detectors[name] for name in sorted(manifest.detectors)]
    views, poolings = get_args(View), get_args(Pooling)
    arrays: dict[str, Array] = {
        "views": np.array([views.index(card.view) for card in cards], np.uint8),
        "poolings": np.array([poolings.index(card.pooling) for card in cards], np.uint8),
        "final_norm": np.array([card.semantics == "hf" for card in cards], bool),
        "model": np.array([manifest.model.layers, manifest.model.width], np.int32),
    }
    card = manifest.decision
    if card and list(card.detectors) == sorted(card.detectors):
        arrays |= _policy(card)
    return arrays


def _policy(card: DecisionCard) -> dict[str, Array]:
    """Who decides, and at which thresholds.

    policy: uint8, 1 where all deciding detectors have to flag.
    promised: bool, whether the whole guard's rate was calibrated.
    shadow: bool [detectors].
    domain_names, domain_ends: uint8 and int32 [domains], the names in order, in UTF-8, one behind
        the other, and where each ends.
    domain_own: bool [domains], whether it has thresholds of its own.
    domain_thresholds: float64 [domains, detectors], zeros where it has none.
    """
    names = sorted(card.domains)
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    limits = [card.domains[name].thresholds for name in names]
    thresholds = [[own.get(name, 0.0) for name in card.detectors] for own in limits]
    return {
        "policy": np.array(card.policy == "all", np.uint8),
        "promised": np.array(card.promised),
        "shadow": np.array([name in card.shadow for name in card.detectors], bool),
        "domain_names": np.frombuffer(b"".join(encoded), np.uint8),
        "domain_ends": np.cumsum([len(name) for name in encoded], dtype=np.int32),
        "domain_own": np.array([bool(own) for own in limits], bool),
        "domain_thresholds": np.array(thresholds, np.float64).reshape(-1, len(card.detectors)),
    }


def serving_faults(manifest: Manifest, arrays: Mapping[str, Array]) -> list[str]:
    """Every array that says something else than the manifest; none at all are no fault."""
    if not arrays:
        return []
    expected = serving_arrays(manifest)
    faults = [f"{SERVING}/{name} is unknown" for name in sorted(arrays.keys() - expected.keys())]
    for name, value in expected.items():
        found = arrays.get(name)
        if found is None or found.dtype != value.dtype or not np.array_equal(found, value):
            faults.append(
                f"{SERVING}/{name} is not what the manifest says; calibrate again, so that both "
                "are written together"
            )
    return faults
