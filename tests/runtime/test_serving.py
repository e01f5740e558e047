"""What ``detectors.npz`` repeats of the manifest: the same, or the bundle is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.bundle.serving import serving_arrays, serving_faults
from layerguard.runtime.types import Array
from tests.runtime.tamper import put_arrays, refused
from tests.runtime.test_decision import calibrated


def serving(bundle: Path) -> dict[str, Array | None]:
    """The arrays that fit the bundle, under the names of the archive."""
    manifest = Bundle.load(bundle).manifest
    return {f"serving/{name}": array for name, array in serving_arrays(manifest).items()}


def test_bundles_load_with_them_and_without(bundle: Path) -> None:
    """A bundle frozen before there were any says the same as one that has them."""
    before = Guard.load(bundle, threads=1).check("the garden was quiet")
    after = Guard.load(put_arrays(bundle, serving(bundle)), threads=1).check("the garden was quiet")
    assert before.readings == after.readings


@pytest.mark.parametrize("name", ["views", "poolings", "final_norm", "model"])
def test_what_differs_from_the_manifest_is_named(bundle: Path, name: str) -> None:
    """Another value, another dtype, or none."""
    arrays = serving(bundle)
    value = arrays[f"serving/{name}"]
    assert value is not None
    for wrong in (~value if value.dtype == bool else value + 1, value.astype(np.int64), None):
        changed = {**arrays, f"serving/{name}": wrong}
        refused(put_arrays(bundle, changed), f"serving/{name} contradicts the manifest")


def test_what_is_unknown_is_named(bundle: Path) -> None:
    """A policy, say, where the manifest has no decision."""
    changed = {**serving(bundle), "serving/policy": np.array(0, np.uint8)}
    refused(put_arrays(bundle, changed), "serving/policy is unknown")


def test_the_decision_is_repeated(sound: Path) -> None:
    """Policy, shadow, and thresholds of the domains that have their own."""
    manifest = calibrated(sound, "all", ("lcf",)).manifest
    arrays = serving_arrays(manifest)
    assert (arrays["policy"], arrays["promised"]) == (1, True)
    assert arrays["shadow"].tolist() == [True, False]
    assert arrays["domain_names"].tobytes() == b"chatmail"
    assert arrays["domain_ends"].tolist() == [4, 8]
    assert arrays["domain_own"].tolist() == [True, False]
    assert arrays["domain_thresholds"].shape == (2, 2)
    assert serving_faults(manifest, arrays) == []
    other = replace(manifest, decision=None)
    assert "serving/shadow is unknown" in serving_faults(other, arrays)
