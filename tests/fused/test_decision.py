"""The decision in the graph: policies, shadow, the whole guard's p-value, and failing closed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Bundle
from layerguard.runtime.bundle.write import replacing, seal
from tests.fused.bundles import ALL, FRESH, calibrated, expected, fed, load, params
from tests.fused.graphs import agree, broken, run
from tests.tiny_decoder import make_bundle

_THREE = ALL[:3]


@pytest.mark.parametrize(
    ("policy", "shadow"),
    [("any", ()), ("any", ("lcf",)), ("all", ()), ("all", ("siren",)), ("weightwatch", ())],
)
def test_policies_and_shadow(policy: str, shadow: tuple[str, ...], tmp_path: Path) -> None:
    """With any policy the flag and the whole guard's p-value equal the runtime's."""
    path = calibrated(tmp_path / "bundle", _THREE, policy, shadow)
    fuse(path, threads=1)
    guard = load(path)
    wanted = expected(guard, FRESH)
    assert "p_value" in wanted
    assert 0 < wanted["flagged"].sum() < 100
    agree(run(path, fed(guard, FRESH)), wanted)


def test_without_a_decision_any_detector_decides(tmp_path: Path) -> None:
    """A bundle without a calibrated decision has no p-value of the whole guard."""
    path = make_bundle(tmp_path / "bundle", params(_THREE), decode=False)
    fuse(path, threads=1)
    guard = load(path)
    wanted = expected(guard, FRESH[:20])
    assert "p_value" not in wanted
    agree(run(path, fed(guard, FRESH[:20])), wanted)


@pytest.mark.parametrize("names", [*[(name,) for name in _THREE], _THREE], ids="+".join)
def test_states_that_are_not_finite_are_flagged(names: tuple[str, ...], tmp_path: Path) -> None:
    """A token with a broken embedding flags its text with any policy, and no other text."""
    path = calibrated(tmp_path / "bundle", names, "all")
    fuse(path, threads=1)
    guard = load(path)
    given = fed(guard, FRESH[:4])
    whole = run(path, given)
    width = given["input_ids"].shape[0] // 4
    place = 1 + int(given["attention_mask"][width : 2 * width].sum(axis=1).min()) // 2
    token = int(guard.bundle.manifest.model.vocabulary) - 1
    given["input_ids"][width : 2 * width, place] = token
    given["input_ids"][width : 2 * width, place - 1] = token
    given["input_ids"][width : 2 * width, given["attention_mask"][width].sum() - 1] = token
    for value in (np.nan, np.inf, -np.inf, 3e38):
        broken(path / "fused.onnx", token, value)
        found = run(path, given)
        assert found["flagged"][1]
        for name in names:
            assert not np.isfinite(found[f"{name}_score"][1])
            assert found[f"{name}_p_value"][1] == pytest.approx(1 / 81)
        others = [0, 2, 3]
        for name, column in whole.items():
            np.testing.assert_array_equal(found[name][others], column[others])


def test_a_row_of_padding_alone_is_flagged(tmp_path: Path) -> None:
    """A row without unmasked tokens is flagged."""
    path = calibrated(tmp_path / "bundle", _THREE, "all")
    fuse(path, threads=1)
    given = fed(load(path), FRESH[:2])
    given["attention_mask"][given["rows"][0]] = 0
    found = run(path, given)
    assert found["flagged"][0]
    assert all(np.isnan(found[f"{name}_score"][0]) for name in _THREE)
    assert np.isfinite(found["lcf_score"][1])


def test_roles_that_are_nobodys_are_flagged(tmp_path: Path) -> None:
    """A role outside 0 to 3 fails closed."""
    path = calibrated(tmp_path / "bundle", ["weightwatch"])
    fuse(path, threads=1)
    given = fed(load(path), FRESH[:3])
    given["roles"][1, 0] = 7
    given["roles"][2, 0] = -1
    found = run(path, given)
    assert found["flagged"][1:].all()
    assert np.isnan(found["weightwatch_score"][1:]).all()
    assert np.isfinite(found["weightwatch_score"][0])


def test_roles_decide_what_is_far(tmp_path: Path) -> None:
    """The assistant's tokens have their own ranges: the same text gets another score."""
    path = calibrated(tmp_path / "bundle", ["weightwatch"])
    fuse(path, threads=1)
    given = fed(load(path), FRESH[:8])
    users = run(path, given)["weightwatch_score"]
    given["roles"][:] = 2
    assert (run(path, given)["weightwatch_score"] != users).all()


def test_equal_ranges_need_no_roles(tmp_path: Path) -> None:
    """If all roles have the same ranges, the graph has no input ``roles``."""
    mine = params(["weightwatch"])
    for name in ("low", "high", "scale"):
        mine["weightwatch"][name][:] = mine["weightwatch"][name][0]
    path = make_bundle(tmp_path / "bundle", mine, decode=False)
    assert fuse(path, threads=1).cards["score"].inputs == ("input_ids", "attention_mask")
    guard = load(path)
    agree(run(path, fed(guard, FRESH[:20])), expected(guard, FRESH[:20]))


def test_the_runtime_agrees_on_broken_states(tmp_path: Path) -> None:
    """With a broken model, graph and runtime report the same texts as invalid."""
    path = calibrated(tmp_path / "bundle", _THREE)
    guard = load(path)
    token = guard.backbone.reader.literal("ぬ")[-1]
    with replacing(path) as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        broken(folder / "score.onnx", token, np.nan)
        seal(folder, Bundle.load(path).manifest)
    fuse(path, threads=1)
    some = [*FRESH[:4], "ok ぬ", "ぬ"]
    guard = load(path)
    wanted = expected(guard, some)
    assert np.isnan(wanted["siren_score"][-2:]).all()
    agree(run(path, fed(guard, some)), wanted)
