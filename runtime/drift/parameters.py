"""The frozen arrays of a checkpoint monitor, and their validation."""

from collections.abc import Mapping

import numpy as np

from layerguard.runtime.bundle.arrays import Shape, array_faults, not_positive
from layerguard.runtime.drift.manifest import MonitorManifest
from layerguard.runtime.drift.regressor import regressor_arrays, regressor_faults
from layerguard.runtime.drift.step_aware import step_arrays
from layerguard.runtime.types import Array

PREFIX = "drift"
"""Prefix of the arrays' names in ``detectors.npz``."""

_UNIT = 1e-3
"""Tolerance on the length of a direction, which should be 1."""


def expected_arrays(traits: int, width: int, *, step_aware: bool) -> dict[str, tuple[str, Shape]]:
    """Names, dtypes and shapes of a monitor's arrays.

    ``calibration_drift`` and ``calibration_rates`` describe the checkpoints that the regressor was
    fitted on. Readings compare a new checkpoint with them.
    """
    return {
        "directions": ("float32", (traits, width)),
        "base_projection": ("float64", (traits,)),
        "base_norm": ("float64", ()),
        "threshold": ("float64", ()),
        "calibration_drift": ("float64", (None, traits)),
        "calibration_rates": ("float64", (None,)),
        **regressor_arrays(traits),
        **(step_arrays(traits) if step_aware else {}),
    }


def monitor_faults(manifest: MonitorManifest, params: Mapping[str, Array]) -> list[str]:
    """All faults of the arrays, and all contradictions with the manifest."""
    traits, width = len(manifest.traits), manifest.base.model.width
    expected = expected_arrays(traits, width, step_aware=manifest.step_aware)
    faults = array_faults(PREFIX, params, expected)
    if faults:
        return faults
    faults += regressor_faults(params, traits)
    faults += not_positive(PREFIX, params, ("base_norm", "step_scale"))
    lengths = np.linalg.norm(params["directions"].astype(np.float64), axis=1)
    if (abs(lengths - 1) > _UNIT).any():
        faults.append(
            "drift/directions has rows whose length is not 1; expected unit rows: run the fit again"
        )
    rates = params["calibration_rates"]
    if len(rates) != len(params["calibration_drift"]):
        faults.append(
            f"drift/calibration_rates has {len(rates)} entries, drift/calibration_drift "
            f"{len(params['calibration_drift'])}; expected one for each checkpoint"
        )
    elif not (rates <= manifest.threshold).any():
        faults.append(
            "drift/calibration_rates has no checkpoint within the threshold; expected at least "
            "one: run the fit again"
        )
    if float(params["threshold"]) != manifest.threshold:
        faults.append(
            f"drift/threshold is {float(params['threshold'])} and the manifest says "
            f"{manifest.threshold}; run the fit again"
        )
    return faults
