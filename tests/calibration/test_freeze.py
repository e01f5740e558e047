"""Freezing into a bundle: merged, atomic, reproducible, with canaries that hold."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration import freeze as module
from layerguard.calibration import lcf
from layerguard.calibration.fingerprint import fingerprint
from layerguard.calibration.freeze import CANARY_TEXTS, Calibrated, freeze
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.errors import BundleError, CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests.calibration.synthetic import clean_states
from tests.tiny import LAYERS, WIDTH, make_params

ROWS = tuple(Row(str(i), request(f"text {i}"), label=0) for i in range(40))


def calibrated(seed: int = 0, rows: tuple[Row, ...] = ROWS) -> Calibrated:
    """LCF of made-up states in the tiny model's size."""
    states = clean_states(len(rows), seed, LAYERS, WIDTH)
    return Calibrated("lcf", "cross-fit", lcf.fit(states), rows, seed, {"folds": 20})


def other() -> Calibrated:
    """SIREN of made-up parameters."""
    return Calibrated("siren", "cross-fit", make_params()["siren"], ROWS, 0, {"eta": 0.9})


def frozen(path: Path, *items: Calibrated) -> Bundle:
    """The bundle after freezing."""
    bundle = Bundle.load(path)
    freeze(bundle, Backbone(bundle, threads=1), items)
    return Bundle.load(path)


def test_what_is_frozen_is_what_is_loaded(bundle: Path) -> None:
    """Arrays to the bit, and the card says how they were come by."""
    item = calibrated()
    found = frozen(bundle, item)
    for name, value in item.params.items():
        assert found.params["lcf"][name].tobytes() == value.tobytes()
    card = found.manifest.detectors["lcf"]
    assert (card.method, card.n, card.seed, card.settings) == ("cross-fit", 40, 0, {"folds": 20})
    assert card.threshold == item.params["threshold"]
    assert card.calibration_sha256 == fingerprint(ROWS)
    assert {"layerguard", "numpy", "onnxruntime", "scikit-learn"} <= found.manifest.versions.keys()


def test_detectors_calibrated_earlier_are_kept(bundle: Path) -> None:
    """A second calibration adds to the first, and replaces only what it fits anew."""
    frozen(bundle, calibrated(seed=0), other())
    found = frozen(bundle, calibrated(seed=1))
    assert set(found.params) == set(found.manifest.detectors) == {"lcf", "siren"}
    assert found.manifest.detectors["lcf"].seed == 1
    assert all(canary.scores.keys() == {"lcf", "siren"} for canary in found.manifest.canaries)


def test_canaries_hold_on_this_machine_and_not_for_other_parameters(bundle: Path) -> None:
    """A guard replays them when it is loaded; their scores are those of ``check``."""
    found = frozen(bundle, calibrated(), other())
    assert [canary.text for canary in found.manifest.canaries] == list(CANARY_TEXTS)
    guard = Guard.load(bundle, threads=1)
    for canary in found.manifest.canaries:
        for name, score in canary.scores.items():
            assert guard.check(canary.text).readings[name].score == pytest.approx(score, rel=1e-6)


def test_same_inputs_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    """Every file of two bundles frozen alike is the same."""
    twin = Path(shutil.copytree(bundle, tmp_path / "twin"))
    for path in (bundle, twin):
        frozen(path, calibrated(), other())
    for path in sorted(bundle.iterdir()):
        assert (twin / path.name).read_bytes() == path.read_bytes(), path.name


def test_parameters_that_cannot_be_served_are_not_written(bundle: Path) -> None:
    """Every fault is listed, and the bundle stays as it was."""
    before = Bundle.load(bundle).id
    broken = {**calibrated().params, "sigma": np.zeros((LAYERS, WIDTH), np.float32)}
    broken.pop("centre")
    with pytest.raises(CalibrationError, match="cannot be served") as raised:
        frozen(bundle, replace(calibrated(), params=broken))
    assert "centre is missing" in str(raised.value)
    assert Bundle.load(bundle).id == before


def test_a_freeze_that_dies_leaves_the_old_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after half of the files, nothing of it is seen."""
    old = frozen(bundle, calibrated(seed=0))

    def dies(path: Path, arrays: dict[str, Array]) -> None:
        path.write_bytes(next(iter(arrays.values())).tobytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_npz", dies)
    with pytest.raises(KeyboardInterrupt):
        frozen(bundle, calibrated(seed=1))
    assert Bundle.load(bundle).id == old.id
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_fingerprint_is_of_texts_labels_and_order() -> None:
    """Ids and places do not enter; everything that calibrates does."""
    renamed = tuple(replace(row, id="x", place="elsewhere:1") for row in ROWS)
    assert fingerprint(renamed) == fingerprint(ROWS)
    relabelled = (replace(ROWS[0], label=1), *ROWS[1:])
    assert len({fingerprint(rows) for rows in (ROWS, ROWS[::-1], relabelled, ROWS[1:])}) == 4


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(bundle: Path) -> None:
    """Of two calibrations of one bundle the second to finish is refused, not the first undone."""
    loaded = Bundle.load(bundle)
    first = frozen(bundle, calibrated())
    with pytest.raises(InputError, match="changed while it was calibrated"):
        freeze(loaded, Backbone(loaded, threads=1), [other()])
    assert Bundle.load(bundle).id == first.id


def test_a_bundle_altered_meanwhile_is_not_blessed(bundle: Path) -> None:
    """New hashes are never made over files that differ from those that were calibrated."""
    loaded = Bundle.load(bundle)
    backbone = Backbone(loaded, threads=1)
    graph = bundle / "score.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"score\.onnx has"):
        freeze(loaded, backbone, [calibrated()])
