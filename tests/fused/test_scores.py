"""The fused graph gives the runtime's scores, p-values and verdicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from layerguard.exporter.fused.graph import Design, build
from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.detectors import REGISTRY
from tests.fused.bundles import ALL, FRESH, calibrated, expected, fed, load
from tests.fused.graphs import agree, run

_TOGETHER = ALL[:3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused decoder with three detectors of three views; tests must not change it."""
    path = calibrated(tmp_path_factory.mktemp("fused") / "bundle")
    fuse(path, threads=1)
    return path


@pytest.mark.parametrize("name", ALL)
def test_each_detector_alone(name: str, tmp_path: Path) -> None:
    """A hundred new texts, each alone, get the runtime's scores, p-values and verdicts.

    One that never decides has LCF beside it.
    """
    path = calibrated(tmp_path / "bundle", [name] if REGISTRY[name].decides else [name, "lcf"])
    fuse(path, threads=1)
    guard = load(path)
    wanted = expected(guard, FRESH)
    assert 5 < wanted["flagged"].sum() < 95
    single = [run(path, fed(guard, [text])) for text in FRESH[:10]]
    agree(
        {key: np.concatenate([one[key] for one in single]) for key in wanted},
        {key: values[:10] for key, values in wanted.items()},
    )
    agree(run(path, fed(guard, FRESH)), wanted)


def test_all_together_in_one_padded_batch(whole: Path) -> None:
    """A hundred texts of three views each, padded to the longest, agree with the runtime."""
    guard = load(whole)
    wanted = expected(guard, FRESH)
    assert 5 < wanted["flagged"].sum() < 95
    given = fed(guard, FRESH)
    assert given["rows"].shape == (100, 3)
    agree(run(whole, given), wanted)


def test_views_of_equal_tokens_may_share_a_row(whole: Path) -> None:
    """Identical rows may be shared."""
    guard = load(whole)
    given = fed(guard, FRESH[:8])
    rows = [tuple(ids[mask == 1]) for ids, mask in zip(given["input_ids"], given["attention_mask"],
                                                      strict=True)]  # fmt: skip
    first = {row: rows.index(row) for row in rows}
    shared = np.vectorize(lambda row: first[rows[row]])(given["rows"])
    assert len(np.unique(shared)) < shared.size
    agree(run(whole, {**given, "rows": shared}), expected(guard, FRESH[:8]))


def test_padding_may_lie_left(tmp_path: Path) -> None:
    """Padding on the left gives the same results."""
    path = calibrated(tmp_path / "bundle")
    fuse(path, threads=1)
    guard = load(path)
    given = fed(guard, FRESH[:6])
    turned = dict(given)
    for name in ("input_ids", "attention_mask", "roles"):
        if name in given:
            turned[name] = given[name].copy()
            for row, mask in enumerate(given["attention_mask"]):
                count = int(mask.sum())
                turned[name][row] = np.roll(given[name][row], len(mask) - count)
    agree(run(path, turned), expected(guard, FRESH[:6]))


def test_a_graph_of_whole_states_is_pooled_in_the_graph(tmp_path: Path) -> None:
    """If the exported graph does not pool, the fused graph does."""
    path = calibrated(tmp_path / "bundle")
    guard = load(path)
    card = guard.bundle.manifest.graphs["score"]
    states = tuple(output for output in card.outputs if output.kind == "state")
    bare = replace(card, mode="states", outputs=states)
    manifest = replace(guard.bundle.manifest, graphs={"score": bare})
    model, _ = build(Design.of(replace(guard.bundle, manifest=manifest)))
    (path / "fused.onnx").write_bytes(model.SerializeToString())
    agree(run(path, fed(guard, FRESH[:20])), expected(guard, FRESH[:20]))


def test_it_holds_standard_operators_alone(whole: Path) -> None:
    """Only operators of the default domain; the checker accepts the graph."""
    model = onnx.load(str(whole / "fused.onnx"))
    assert {item.domain for item in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)


def test_what_no_detector_reads_is_gone(tmp_path: Path) -> None:
    """LCF needs no mean; the graph has none of the nodes of the mean."""
    path = calibrated(tmp_path / "bundle", ["lcf"])
    fuse(path, threads=1)
    names = {
        name for node in onnx.load(str(path / "fused.onnx")).graph.node for name in node.output
    }
    assert "last_01" in names
    assert not {name for name in names if name.startswith("mean_")}


def test_thresholds_are_fed_or_not(whole: Path) -> None:
    """A threshold that is fed is used; the scores do not change."""
    guard = load(whole)
    given = fed(guard, FRESH)
    plain = run(whole, given)
    lax = {f"{name}_threshold": np.array(1e9) for name in _TOGETHER}
    assert not run(whole, {**given, **lax})["flagged"].any()
    one = run(whole, {**given, **lax, "lcf_threshold": np.array(np.median(plain["lcf_score"]))})
    np.testing.assert_array_equal(
        one["flagged"], plain["lcf_score"] > np.median(plain["lcf_score"])
    )
    np.testing.assert_array_equal(one["siren_score"], plain["siren_score"])


def test_a_threshold_that_is_no_number_flags(whole: Path) -> None:
    """A NaN threshold flags every text."""
    given = fed(load(whole), FRESH[:5])
    assert run(whole, {**given, "siren_threshold": np.array(np.nan)})["flagged"].all()
