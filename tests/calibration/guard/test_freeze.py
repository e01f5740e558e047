"""Freezing into a bundle is atomic and reproducible, keeps other detectors, and adds canaries."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration import lcf
from layerguard.calibration.guard import freeze as module
from layerguard.calibration.guard.freeze import CANARY_TEXTS, freeze
from layerguard.calibration.rows.fingerprint import fingerprint
from layerguard.calibration.stages import FittedDetector
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.errors import BundleError, CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests.calibration.synthetic import clean_states
from tests.tiny import LAYERS, WIDTH, make_bundle, make_params

ROWS = tuple(Row(str(i), request(f"text {i}"), label=0) for i in range(40))


def calibrated(seed: int = 0, rows: tuple[Row, ...] = ROWS) -> FittedDetector:
    """LCF fitted to synthetic states of the tiny model's size."""
    states = clean_states(len(rows), seed, LAYERS, WIDTH)
    return FittedDetector(
        "lcf", "cross-fit", lcf.fit(states, target_fpr=0.1), rows, seed, {"folds": 20}
    )


def other() -> FittedDetector:
    """SIREN with synthetic parameters."""
    return FittedDetector("siren", "cross-fit", make_params()["siren"], ROWS, 0, {"eta": 0.9})


def frozen(path: Path, *items: FittedDetector) -> Bundle:
    """The bundle after freezing."""
    bundle = Bundle.load(path)
    freeze(bundle, Backbone(bundle, threads=1), items)
    return Bundle.load(path)


def test_what_is_frozen_is_what_is_loaded(bundle: Path) -> None:
    """Loaded arrays equal the frozen ones to the bit, and the card records the fit."""
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
    """A second calibration replaces only the detectors that it fits, and keeps the others."""
    frozen(bundle, calibrated(seed=0), other())
    found = frozen(bundle, calibrated(seed=1))
    assert set(found.params) == set(found.manifest.detectors) == {"lcf", "siren"}
    assert found.manifest.detectors["lcf"].seed == 1
    assert all(canary.scores.keys() == {"lcf", "siren"} for canary in found.manifest.canaries)


def test_canaries_hold_on_this_machine_and_not_for_other_parameters(bundle: Path) -> None:
    """Loading a guard replays the canaries; their scores are those of ``check``."""
    found = frozen(bundle, calibrated(), other())
    assert [canary.text for canary in found.manifest.canaries] == list(CANARY_TEXTS)
    guard = Guard.load(bundle, threads=1)
    for canary in found.manifest.canaries:
        for name, score in canary.scores.items():
            assert guard.check(canary.text).readings[name].score == pytest.approx(score, rel=1e-6)


_REFUSES = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn first') }}{% endif %}a"
)
_NO_INSTRUCTIONS = (
    "{% if 'instructions' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    "{{ messages[0].content }}"
)


def test_a_template_that_refuses_every_canary_is_named(tmp_path: Path) -> None:
    """Nothing is written: such a bundle could not be served."""
    path = make_bundle(tmp_path / "bundle", {}, template="chat", chat_template=_REFUSES)
    with pytest.raises(CalibrationError, match=r"none of the 4 canary texts .*a system turn first"):
        frozen(path, calibrated())
    assert not Bundle.load(path).manifest.detectors


def test_a_canary_that_the_template_refuses_is_left_out(tmp_path: Path) -> None:
    """The others check every detector."""
    path = make_bundle(tmp_path / "bundle", {}, template="chat", chat_template=_NO_INSTRUCTIONS)
    found = frozen(path, calibrated(), other())
    assert [canary.text for canary in found.manifest.canaries] == list(CANARY_TEXTS[:3])
    assert Guard.load(path, threads=1).check("the garden").unread == ()


def test_same_inputs_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    """Two bundles that are frozen from the same inputs have equal files."""
    twin = Path(shutil.copytree(bundle, tmp_path / "twin"))
    for path in (bundle, twin):
        frozen(path, calibrated(), other())
    for path in sorted(bundle.iterdir()):
        assert (twin / path.name).read_bytes() == path.read_bytes(), path.name


def test_parameters_that_cannot_be_served_are_not_written(bundle: Path) -> None:
    """Every fault is listed, and the bundle is unchanged."""
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
    """A freeze that is killed after half of the files leaves the old bundle unchanged."""
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
    """The fingerprint depends on texts, labels and order, but not on ids and places."""
    renamed = tuple(replace(row, id="x", place="elsewhere:1") for row in ROWS)
    assert fingerprint(renamed) == fingerprint(ROWS)
    relabelled = (replace(ROWS[0], label=1), *ROWS[1:])
    assert len({fingerprint(rows) for rows in (ROWS, ROWS[::-1], relabelled, ROWS[1:])}) == 4


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(bundle: Path) -> None:
    """If two calibrations of one bundle overlap, the second one to finish is refused."""
    loaded = Bundle.load(bundle)
    first = frozen(bundle, calibrated())
    with pytest.raises(InputError, match="changed while it was calibrated"):
        freeze(loaded, Backbone(loaded, threads=1), [other()])
    assert Bundle.load(bundle).id == first.id


def test_a_bundle_altered_meanwhile_is_not_blessed(bundle: Path) -> None:
    """Files that changed since the bundle was loaded are refused, not hashed again."""
    loaded = Bundle.load(bundle)
    backbone = Backbone(loaded, threads=1)
    graph = bundle / "score.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"score\.onnx has"):
        freeze(loaded, backbone, [calibrated()])
