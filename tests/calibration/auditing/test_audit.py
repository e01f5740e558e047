"""``layerguard audit``: weight changes, the texts that excite them, and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.calibration.auditing.weight_changes import excitations, matrix_changes, strongest
from layerguard.calibration.weights.tuning import adapter_alone, between
from layerguard.calibration.weightwatch.directions import directions
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import main
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import read_rows
from tests.calibration.checkpoints import factors, llama_weights, save_adapter, save_model
from tests.calibration.report.parsed_page import check_page
from tests.calibration.synthetic import sentences, write_rows
from tests.tiny import make_bundle

NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, a model with one changed matrix, an adapter, a bundle, and a corpus of 40 texts."""
    folder = tmp_path_factory.mktemp("audit")
    base = llama_weights()
    rng = np.random.default_rng(3)
    change = rng.normal(size=(16, 2)) @ rng.normal(size=(2, 24))
    change *= 0.25 * np.linalg.norm(base[NAME]) / np.linalg.norm(change)
    tuned = base | {NAME: (base[NAME] + change).astype(np.float32)}
    return {
        "base": save_model(folder / "base", base),
        "tuned": save_model(folder / "tuned", tuned),
        "adapter": save_adapter(folder / "adapter", factors(rank=2)),
        "bundle": make_bundle(folder / "bundle", {}, mode="states"),
        "corpus": write_rows(folder / "rows.jsonl", [{"text": t} for t in sentences(40, 1)]),
    }


def _audit(folders: dict[str, Path], *arguments: str, tuned: str = "tuned") -> int:
    return main(["audit", str(folders["base"]), str(folders[tuned]), *arguments])


def test_figures_of_a_known_change(folders: dict[str, Path]) -> None:
    """One matrix changes by a quarter of the base's norm with rank two; the others do not."""
    found = matrix_changes(between(folders["base"], folders["tuned"]), ranks=5)
    assert [(m.layer, m.part) for m in found] == [
        (layer, part) for layer in (1, 2, 3) for part in ("down_proj", "o_proj")
    ]
    changed = found[2]
    assert changed.relative_change == pytest.approx(0.25, rel=1e-5)
    assert len(changed.singular_values) == 2
    assert 1 <= changed.stable_rank <= 2
    assert changed.leading_share == pytest.approx(1)
    first, second = changed.singular_values
    assert changed.stable_rank == pytest.approx(1 + (second / first) ** 2, rel=1e-5)
    rest = [m for m in found if m is not changed]
    assert {(m.relative_change, m.singular_values, m.stable_rank) for m in rest} == {(0, (), 0)}


def test_examples_are_the_rows_that_lie_farthest(folders: dict[str, Path]) -> None:
    """The examples along and against each direction agree with cosines computed in the test."""
    bundle = Bundle.load(folders["bundle"])
    backbone = Backbone(bundle)
    rows = read_rows([folders["corpus"]]).good
    watched = strongest(directions(adapter_alone(folders["adapter"]), 3), 3)
    found, faults = excitations(backbone, rows, watched, texts=4)
    assert not faults
    assert [item.singular_value for item in found] == sorted(
        watched["singular_values"].tolist(), reverse=True
    )
    values = {
        tuple(int(watched[name][k]) for name in ("layers", "ranks")): _cosines(
            backbone, rows, watched, k
        )
        for k in range(3)
    }
    for item in found:
        cosines = values[item.layer, item.rank]
        highest = np.sort([c.max() for c in cosines])[::-1][:4]
        lowest = np.sort([c.min() for c in cosines])[:4]
        np.testing.assert_allclose([e.cosine for e in item.along], highest, atol=1e-6)
        np.testing.assert_allclose([e.cosine for e in item.against], lowest, atol=1e-6)
        assert {e.role for e in item.along} == {"user"}
        assert len({e.text for e in item.along}) == 4


def _cosines(backbone: Backbone, rows: Any, watched: Any, k: int) -> list[Any]:
    """Each row's cosines to direction k, from the graph's own states."""
    state, vector = int(watched["layers"][k]), watched["directions"][k].astype(np.float64)
    found = []
    for row in rows:
        ids = backbone.reader.read(row.request, {"conversation"})["conversation"].windows[0]
        batch = np.array([ids], np.int64)
        feeds = {"input_ids": batch, "attention_mask": np.ones_like(batch)}
        (h,) = backbone.session.run([f"state_{state:02}"], feeds)
        found.append(h[0] @ vector / np.linalg.norm(h[0], axis=1))
    return found


def test_repeated_texts_are_shown_once(folders: dict[str, Path], tmp_path: Path) -> None:
    """A text that occurs ten times is shown once."""
    corpus = write_rows(
        tmp_path / "same.jsonl", [{"text": "the quiet garden"}] * 10 + [{"text": "rain"}]
    )
    watched = strongest(directions(adapter_alone(folders["adapter"]), 3), 1)
    backbone = Backbone(Bundle.load(folders["bundle"]))
    found, _ = excitations(backbone, read_rows([corpus]).good, watched, texts=5)
    assert {e.text for e in found[0].along} == {"the quiet garden", "rain"}
    assert len(found[0].along) == 2


def test_table_shows_the_most_changed_first(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is sorted by change and has the requested number of rows."""
    assert _audit(folders, "--shown", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("down_proj 2")
    assert "25 %" in lines[2]
    assert len(lines) == 4


def test_json_is_one_object_a_line(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Stdout has all matrices, then all directions, and nothing else."""
    bundle = ["--bundle", str(folders["bundle"]), "--corpus", str(folders["corpus"])]
    options = ["--directions", "2", "--texts", "3", "--json"]
    assert _audit(folders, *bundle, *options, tuned="adapter") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["kind"] for item in objects] == ["matrix"] * 3 + ["direction"] * 2
    assert all(len(item["along"]) == len(item["against"]) == 3 for item in objects[3:])


def test_page_stands_alone_and_escapes_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    """Texts of a corpus are escaped, and the plots are inline."""
    corpus = write_rows(tmp_path / "rows.jsonl", [{"text": "the <script>alert(1)</script> garden"}])
    page = tmp_path / "audit.html"
    bundle = ["--bundle", str(folders["bundle"]), "--corpus", str(corpus)]
    assert _audit(folders, *bundle, "--html", str(page)) == 0
    text = page.read_text(encoding="utf-8")
    parsed = check_page(text)
    assert len(parsed.charts) == 2
    assert "the <script>alert(1)</script> garden" in parsed.text


def test_too_large_a_change_is_flagged(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1 above --max-change, and 0 otherwise."""
    assert _audit(folders, "--max-change", "0.3") == 0
    assert _audit(folders, "--max-change", "0.2") == 1
    assert "down_proj of layer 2 changed by 25 %; expected at most 20 %" in capsys.readouterr().err


def test_changes_beyond_harmless_fine_tunes_are_named(
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each matrix shows its range in the harmless fine-tunes; those beyond it are named."""
    base = llama_weights()
    scale = {"first": 1.1, "second": 1.3}
    harmless = [
        str(save_model(tmp_path / name, base | {NAME: (base[NAME] * by).astype(np.float32)}))
        for name, by in scale.items()
    ]
    page = tmp_path / "audit.html"
    assert _audit(folders, "--harmless", *harmless, "--html", str(page)) == 0
    out = capsys.readouterr().out
    assert "10 to 30 %" in out
    assert "0 of 6 matrices changed by more than in every harmless fine-tune." in out
    check_page(page.read_text(encoding="utf-8"))
    assert _audit(folders, "--harmless", harmless[0]) == 0
    assert "1 of 6 matrices changed by more" in capsys.readouterr().out
    assert _audit(folders, "--harmless", *harmless, "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    changed = next(o for o in objects if (o["layer"], o["part"]) == (2, "down_proj"))
    assert changed["harmless"] == pytest.approx([0.1, 0.3], rel=1e-4)


def test_a_bad_row_is_reported_and_the_rest_are_read(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad row is reported with its line number; the exit code is 2."""
    corpus = write_rows(tmp_path / "rows.jsonl", [{"text": "rain"}, "{broken", {"text": "river"}])
    bundle = ["--bundle", str(folders["bundle"]), "--corpus", str(corpus)]
    assert _audit(folders, *bundle) == 2
    captured = capsys.readouterr()
    assert "rows.jsonl:2" in captured.err
    assert "river" in captured.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corpus", "rows.jsonl"], "found no --bundle"),
        (["--bundle", "bundle"], "found no --corpus"),
        (["--ranks", "0"], "--ranks: found 0"),
        (["--max-change", "nan"], "--max-change: found nan"),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    folders: dict[str, Path], arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invalid arguments are refused with exit code 2 before a file is read."""
    assert _audit(folders, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_bundle_of_pooled_states_is_refused(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle without token states is refused; the message says how to export them."""
    pooled = make_bundle(tmp_path / "pooled", {})
    code = _audit(folders, "--bundle", str(pooled), "--corpus", str(folders["corpus"]))
    assert code == 2
    assert "export" in capsys.readouterr().err


def test_it_runs_without_torch_and_scikit_learn() -> None:
    """The command imports neither PyTorch nor scikit-learn."""
    code = (
        "import sys, layerguard.calibration.commands.audit;"
        "print({'torch', 'transformers', 'sklearn'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
