"""A fused graph in a bundle: it is listed with its proof, shares weights and is never stale."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from layerguard.exporter.fused import pipeline, proof
from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Bundle
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.write import carry_over, replacing, seal
from layerguard.runtime.cli import main
from layerguard.runtime.errors import BundleError, ExportError
from tests.fused.bundles import FRESH, calibrated, expected, fed, load, recalibrated, texts
from tests.fused.graphs import agree, run
from tests.runtime.tamper import edit_manifest
from tests.tiny_decoder import make_bundle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fused bundle that the test may change."""
    made = calibrated(tmp_path / "bundle", ["lcf", "siren"])
    fuse(made, threads=1)
    return made


def test_the_manifest_says_what_was_proved(path: Path) -> None:
    """File, inputs, outputs and the largest difference are listed; the bundle is valid."""
    manifest = Bundle.load(path).manifest
    card = manifest.fused["score"]
    assert card.file in manifest.files
    assert card.inputs == ("input_ids", "attention_mask", "rows")
    assert card.thresholds == {"lcf": "lcf_threshold", "siren": "siren_threshold"}
    assert card.columns == {"lcf": 0, "siren": 1}
    assert card.proof.flips == 0
    assert set(card.proof.largest) == {"lcf", "siren"}
    assert all(apart <= card.proof.tolerance for apart in card.proof.largest.values())
    assert {"flagged", "p_value", "lcf_score", "siren_p_value"} <= set(card.outputs)


def test_the_same_bundle_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    """Fusing again changes nothing."""
    before = (path / "fused.onnx").read_bytes(), Bundle.load(path).id
    fuse(path, threads=1)
    assert ((path / "fused.onnx").read_bytes(), Bundle.load(path).id) == before
    assert not list(tmp_path.glob(".*"))


def test_large_weights_are_shared(path: Path) -> None:
    """Weights that score.onnx has in weights.data are read from there by the fused graph."""
    with replacing(path) as folder:
        names = [name for name in Bundle.load(path).manifest.files if name != "fused.onnx"]
        carry_over(path, folder, names)
        model = onnx.load(str(path / "score.onnx"))
        (folder / "score.onnx").unlink()
        onnx.save(
            model, str(folder / "score.onnx"), save_as_external_data=True, location="weights.data",
            size_threshold=1024,
        )  # fmt: skip
        seal(folder, replace(Bundle.load(path).manifest, fused={}))
    weights = (path / "weights.data").read_bytes()
    fuse(path, threads=1)
    assert (path / "weights.data").read_bytes() == weights
    stored = {item.name: item for item in onnx.load(
        str(path / "fused.onnx"), load_external_data=False).graph.initializer}  # fmt: skip
    assert stored["embedding"].data_location == onnx.TensorProto.EXTERNAL
    guard = load(path)
    agree(run(path, fed(guard, FRESH[:10])), expected(guard, FRESH[:10]))


def test_new_thresholds_drop_it(path: Path) -> None:
    """Recalibration removes the fused graph; a new one agrees with the new thresholds."""
    recalibrated(path, seed=5)
    assert not (path / "fused.onnx").exists()
    assert not Bundle.load(path).manifest.fused
    fuse(path, threads=1)
    guard = load(path)
    agree(run(path, fed(guard, FRESH[:10])), expected(guard, FRESH[:10]))


def test_the_command_recalibrate_says_that_it_fell_away(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command tells the user to fuse again."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(60, 7)))
    assert main(["recalibrate", str(path), "--shadow", str(rows), "--threads", "1"]) == 0
    assert "fused.onnx fell away: `layerguard fuse` makes a new one" in capsys.readouterr().out
    assert not (path / "fused.onnx").exists()


def test_no_writer_can_leave_a_stale_one(path: Path) -> None:
    """Sealing refuses a bundle whose parameters changed but whose fused card did not."""
    bundle = Bundle.load(path)
    arrays = {f"{d}/{k}": v for d, own in bundle.params.items() for k, v in own.items()}
    arrays |= {f"decision/{key}": value for key, value in bundle.decision.items()}
    arrays["lcf/mu"] = arrays["lcf/mu"] + np.float32(1)

    def write() -> None:
        with replacing(path) as folder:
            carry_over(path, folder, [n for n in bundle.manifest.files if n != "detectors.npz"])
            write_npz(folder / "detectors.npz", arrays)
            seal(folder, bundle.manifest)

    with pytest.raises(BundleError, match="made from other parameters"):
        write()
    assert Bundle.load(path).id == bundle.id


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("made_of", "0" * 64, "made from other parameters"),
        ("thresholds", {"lcf": "lcf_threshold"}, "fused.score.thresholds"),
        ("file", "other.onnx", "lists no 'other.onnx'"),
    ],
)
def test_a_card_that_cannot_be_true_is_refused(
    key: str, value: object, words: str, path: Path
) -> None:
    """A manifest whose fused card contradicts the rest is not served."""
    edit_manifest(path, lambda manifest: manifest["fused"]["score"].update({key: value}))
    with pytest.raises(BundleError, match=words):
        Bundle.load(path)


def test_flips_in_the_proof_are_refused(path: Path) -> None:
    """A card with flipped verdicts in its proof is refused."""
    edit_manifest(path, lambda manifest: manifest["fused"]["score"]["proof"].update(flips=1))
    with pytest.raises(BundleError, match="1 flips; expected none"):
        Bundle.load(path)


def test_a_graph_that_scores_otherwise_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is proved before it is written; on failure the bundle is unchanged."""
    recalibrated(path)
    before = Bundle.load(path).id
    monkeypatch.setitem(proof.TOLERANCES, "float32", 1e-12)
    with pytest.raises(ExportError, match="the fused graph differs from the runtime"):
        fuse(path, threads=1)
    assert Bundle.load(path).id == before
    assert not (path / "fused.onnx").exists()


def test_a_bundle_that_changed_meanwhile_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the bundle was calibrated between reading and writing, nothing is written."""
    real = pipeline.build

    def slow(design: pipeline.Design, name: str) -> object:
        recalibrated(path, seed=9)
        return real(design, name)

    monkeypatch.setattr(pipeline, "build", slow)
    with pytest.raises(Exception, match="changed while it was fused"):
        fuse(path, threads=1)


def test_a_bundle_without_detectors_cannot_be_fused(tmp_path: Path) -> None:
    """The error says to calibrate first."""
    bare = make_bundle(tmp_path / "bare", {}, decode=False)
    with pytest.raises(BundleError, match="no detectors yet"):
        fuse(bare, threads=1)


def test_the_command_prints_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, outputs, columns, differences; a bad row of --texts is reported, exit code 2."""
    made = calibrated(tmp_path / "bundle")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in FRESH[:9]) + "{\n")
    assert main(["fuse", str(made), "--texts", str(rows), "--threads", "1"]) == 2
    printed = capsys.readouterr()
    assert "inputs: input_ids, attention_mask, roles, rows" in printed.out
    assert "columns: lcf 0, siren 1, weightwatch 2" in printed.out
    assert "fused.onnx: 9 texts, 0 flips" in printed.out
    assert "rows.jsonl:10: not JSON" in printed.err
    assert main(["inspect", str(made)]) == 0
    assert "fused    score: fused.onnx" in capsys.readouterr().out
