"""The part of the manifest that ``detectors.npz`` repeats, for programs that read only that file.

``lg_open`` (``csrc/layerguard_api.h``) does not read the manifest. These arrays hold the view that
each detector was calibrated on, its pooling, the model's size and the policy. They have one entry
per detector, ordered by name. Older bundles without these arrays still load.
"""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.manifest import Manifest
from layerguard.runtime.types import Array, Pooling, View

SERVING = "serving"
"""Prefix of the arrays in ``detectors.npz``; no detector may have this name."""


def serving_arrays(manifest: Manifest) -> dict[str, Array]:
    """The arrays, by name.

    views, poolings: uint8 [detectors], an index into the values of ``View`` and ``Pooling``.
    final_norm: bool [detectors], whether the last state is the one after the final norm.
    model: int32 [2], layers and width.
    If there is a decision, also the arrays of ``_policy``.
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
    """The policy, and the thresholds of the domains.

    policy: uint8, 1 if all deciding detectors must flag.
    promised: bool, whether the whole guard's rate was calibrated.
    shadow: bool [detectors].
    domain_names, domain_ends: uint8 and int32 [domains], the sorted names concatenated, in UTF-8,
        and the offset of the end of each.
    domain_own: bool [domains], whether it has its own thresholds.
    domain_thresholds: float64 [domains, detectors], zeros if it has none.
    """
    names = sorted(card.domains)
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    by_domain = [card.domains[name].thresholds for name in names]
    thresholds = [[own.get(name, 0.0) for name in card.detectors] for own in by_domain]
    return {
        "policy": np.array(card.policy == "all", np.uint8),
        "promised": np.array(card.promised),
        "shadow": np.array([name in card.shadow for name in card.detectors], bool),
        "domain_names": np.frombuffer(b"".join(encoded), np.uint8),
        "domain_ends": np.cumsum([len(name) for name in encoded], dtype=np.int32),
        "domain_own": np.array([bool(own) for own in by_domain], bool),
        "domain_thresholds": np.array(thresholds, np.float64).reshape(-1, len(card.detectors)),
    }


def serving_faults(manifest: Manifest, arrays: Mapping[str, Array]) -> list[str]:
    """Every array that contradicts the manifest; it is no fault if there are none at all."""
    if not arrays:
        return []
    expected = serving_arrays(manifest)
    faults = [f"{SERVING}/{name} is unknown" for name in sorted(arrays.keys() - expected.keys())]
    for name, value in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype != value.dtype or not np.array_equal(array, value):
            faults.append(
                f"{SERVING}/{name} contradicts the manifest; calibrate again, so that both are "
                "written together"
            )
    return faults
