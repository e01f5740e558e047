"""The folder of a checkpoint monitor: all faults are listed, and a faulty one is not used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime.bundle.files import card_of
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.drift import CheckpointMonitor
from layerguard.runtime.errors import BundleError
from layerguard.runtime.types import Array
from tests.drift_monitors import make_base, make_monitor, monitor_params


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid monitor that no test changes."""
    folder = tmp_path_factory.mktemp("drift")
    return make_monitor(folder / "monitor", make_base(folder / "base"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A valid monitor for one test."""
    return Path(shutil.copytree(sound, tmp_path / "monitor"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's values."""
    path = folder / "manifest.json"
    values = json.loads(path.read_bytes())
    change(values)
    path.write_text(json.dumps(values))


def rewrite_arrays(folder: Path, **arrays: Array) -> None:
    """Put other arrays into the archive and its hash into the manifest."""
    params = monitor_params() | arrays
    write_npz(folder / "detectors.npz", {f"drift/{name}": a for name, a in params.items()})
    card = card_of(folder / "detectors.npz")
    rewrite(
        folder,
        lambda v: v["files"].update(
            {"detectors.npz": {"bytes": card.bytes, "sha256": card.sha256}}
        ),
    )


def faults_of(folder: Path) -> tuple[str, ...]:
    """The faults that loading finds."""
    with pytest.raises(BundleError) as caught:
        CheckpointMonitor.load(folder)
    return caught.value.faults


def test_a_monitor_is_the_same_bytes_again(sound: Path, tmp_path: Path) -> None:
    """Two fits on the same data give the same bytes and the same id."""
    again = make_monitor(tmp_path / "again", make_base(tmp_path / "base"))
    for name in ("manifest.json", "detectors.npz"):
        assert (again / name).read_bytes() == (sound / name).read_bytes()
    assert CheckpointMonitor.load(again).id == CheckpointMonitor.load(sound).id


def test_a_folder_without_a_manifest_is_explained(tmp_path: Path) -> None:
    """The message names the command that writes one."""
    assert "`layerguard drift fit` wrote" in faults_of(tmp_path)[0]


def test_a_bundle_is_no_monitor(tmp_path: Path) -> None:
    """Exchanged folders are recognised."""
    assert "expected 'drift monitor'" in faults_of(make_base(tmp_path / "base"))[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v.update(schema=2), "schema 2; this release reads up to 1"),
        (lambda v: v.update(schema=0), "schema is 0"),
        (lambda v: v.update(layer=0), "layer is 0; expected 1 to 3"),
        (lambda v: v.update(layer=4), "layer is 4; expected 1 to 3"),
        (lambda v: v.update(layer="2"), "layer: found '2'; expected a whole number"),
        (lambda v: v.update(threshold=1.0), "threshold is 1.0"),
        (lambda v: v.update(threshold=0.1), "drift/threshold is 0.05 and the manifest says 0.1"),
        (lambda v: v.update(prompts=[]), "prompts is empty"),
        (lambda v: v.update(traits=v["traits"][:1]), "drift/directions is float32 [2, 16]"),
        (lambda v: v.update(traits=[v["traits"][0]] * 2), "found 2 traits, 1 different"),
        (lambda v: v.update(step_aware=True), "drift/step_component is missing"),
        (lambda v: v.update(regressor="oracle"), "regressor: found 'oracle'"),
        (lambda v: v.update(kind="bundle"), "kind 'bundle'"),
        (lambda v: v.pop("base"), "no key 'base'"),
        (lambda v: v.update(more=1), "unknown key 'more'"),
        (lambda v: v.update(files={}), "lists no 'detectors.npz'"),
        (lambda v: v["files"]["detectors.npz"].update(bytes=7), "the manifest says 7"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    """Every wrong or contradictory value is named."""
    rewrite(folder, change)
    assert any(expected in fault for fault in faults_of(folder)), faults_of(folder)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"base_norm": np.array(0.0)}, "base_norm has values of zero or less"),
        ({"base_norm": np.array(np.nan)}, "base_norm has 1 values that are not finite"),
        ({"directions": np.ones((2, 16), np.float32)}, "rows whose length is not 1"),
        ({"directions": np.eye(2, 16)}, "directions is float64"),
        ({"calibration_rates": np.array([0.0, 1.0])}, "expected one for each checkpoint"),
        ({"calibration_rates": np.ones(3)}, "no checkpoint within the threshold"),
        ({"extra": np.ones(3)}, "drift/extra is unknown"),
        ({"tree_roots": np.array([0], np.int32)}, "tree_roots names a node outside"),
        ({"tree_value": np.zeros(1)}, "the tree arrays differ in length"),
    ],
)
def test_wrong_arrays_are_refused(folder: Path, arrays: dict[str, Array], expected: str) -> None:
    """Missing, unknown, misshapen, non-finite or contradictory arrays, hash in order."""
    rewrite_arrays(folder, **arrays)
    assert any(expected in fault for fault in faults_of(folder)), faults_of(folder)


@pytest.mark.parametrize(
    ("left", "right", "feature", "expected"),
    [
        ([0, 1], [1, 1], [0, 0], "node 0 has children 0 and 1"),
        ([1, 0], [1, 0], [0, 0], "node 1 has children 0 and 0"),
        ([1, 1], [2, 1], [0, 0], "node 0 has children 1 and 2"),
        ([1, 1], [1, 1], [2, 0], "tree_feature names a trait outside 0..1"),
    ],
    ids=["half a leaf", "a circle", "outside", "no such trait"],
)
def test_trees_that_would_not_end_are_refused(
    folder: Path, left: list[int], right: list[int], feature: list[int], expected: str
) -> None:
    """A malicious monitor cannot loop for ever or read outside its arrays."""
    rewrite_arrays(
        folder,
        tree_roots=np.array([0], np.int32),
        tree_left=np.array(left, np.int32),
        tree_right=np.array(right, np.int32),
        tree_feature=np.array(feature, np.int32),
        tree_threshold=np.zeros(2),
        tree_value=np.zeros(2),
    )
    assert any(expected in fault for fault in faults_of(folder)), faults_of(folder)


def test_an_altered_archive_is_refused(folder: Path) -> None:
    """One changed byte is a wrong hash."""
    path = folder / "detectors.npz"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert "it was altered" in faults_of(folder)[0]
