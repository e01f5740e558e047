"""``layerguard trace`` on the command line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.write import seal
from layerguard.runtime.cli import main
from tests.calibration.report.parsed_page import check_page
from tests.calibration.synthetic import sentences, write_rows
from tests.reference import trace as reference
from tests.tiny import LAYERS, WIDTH, WORDS, make_bundle
from tests.tiny_analysis import lens, make_traceable

TEXT = "the garden was quiet"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bundle with an analysis graph."""
    return make_traceable(tmp_path_factory.mktemp("traceable") / "bundle")


def trace(*arguments: object) -> int:
    """Run the command on one thread."""
    return main(["trace", *map(str, arguments), "--threads", "1"])


def lines(printed: str) -> list[dict[str, Any]]:
    """The JSON objects of some output."""
    return [json.loads(line) for line in printed.splitlines()]


def test_one_text_gives_a_table_and_findings(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One text gives both layers, the vulnerable layer, the layer robustness and a suggestion."""
    assert trace(bundle, TEXT) == 0
    printed = capsys.readouterr()
    for words in ("largest ratio", "first rise", "most vulnerable", "JS nats", "mask zero",
                  "Ours, not the paper's LRS", "export --layers", "One prompt only"):  # fmt: skip
        assert words in printed.out
    assert printed.err == ""


def test_json_is_one_object_a_prompt_and_one_of_all(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line is the summary; the numbers agree with the network."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": t} for t in sentences(5, seed=0)])
    assert trace(bundle, "--input", rows, "--json", "--mask", "ablate", "--seed", 4) == 0
    *prompts, summary = lines(capsys.readouterr().out)
    assert [prompt["id"] for prompt in prompts] == [f"rows-{i}" for i in range(1, 6)]
    first = prompts[0]
    words = json.loads(rows.read_text().splitlines()[0])["text"].split()
    ids = np.array([2, *map(WORDS.index, words), 3])
    assert first["tokens"] == len(ids)
    logits = lens(ids, np.zeros(LAYERS, bool), np.ones((LAYERS, WIDTH)))
    curve = [float(reference.softmax(found)[first["target"]["id"]]) for found in logits]
    np.testing.assert_allclose(first["probability"], curve, rtol=1e-4)
    assert first["target"]["text"] == WORDS[int(np.argmax(logits[-1]))]
    assert (len(first["ratio"]), len(first["divergence_nats"])) == (LAYERS, LAYERS)
    assert summary["prompts"] == 5
    assert summary["mask"] == {"mode": "ablate", "share": 0.5, "seed": 4}
    divergence = [prompt["divergence_nats"] for prompt in prompts]
    np.testing.assert_allclose(summary["divergence_nats"]["value"], np.mean(divergence, axis=0))
    assert sum(summary["max_ratio_counts"]) == 5
    assert 1 <= summary["suggested_layers"] <= LAYERS


def test_the_target_is_the_rows_own_or_the_models(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row's target precedes its response, and both precede the model's token by default."""
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [
            {"text": TEXT, "target": "river near", "response": "rain"},
            {"prompt": TEXT, "response": "rain came"},
            {"text": TEXT},
        ],
    )
    assert trace(bundle, "--input", rows, "--json") == 0
    own = [line["target"]["text"] for line in lines(capsys.readouterr().out)[:-1]]
    assert own[:2] == ["river", "rain"]
    assert trace(bundle, "--input", rows, "--json", "--target", "model") == 0
    models = [line["target"]["text"] for line in lines(capsys.readouterr().out)[:-1]]
    assert models == [own[2]] * 3


def test_a_target_that_spells_a_special_token_is_text(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target that spells a special token is plain text."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": TEXT, "target": "[SEP] now"}])
    assert trace(bundle, "--input", rows, "--json") == 0
    assert lines(capsys.readouterr().out)[0]["target"]["text"] == "[UNK]"


def test_bad_rows_are_named_and_the_others_traced(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad rows are reported with file and line; the exit code is 2."""
    path = write_rows(
        tmp_path / "rows.jsonl", [{"text": TEXT}, "{broken", {"text": TEXT, "target": "  "}]
    )
    assert trace(bundle, "--input", path, "--json") == 2
    printed = capsys.readouterr()
    assert [line.get("id") for line in lines(printed.out)] == ["rows-1", None]
    assert f"{path}:2: not JSON" in printed.err
    assert f"{path}:3: target: found '  ', which has no token" in printed.err


def test_rows_of_which_none_can_be_traced(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traced prompt there is no summary."""
    path = write_rows(tmp_path / "rows.jsonl", [{"text": TEXT, "target": ""}])
    assert trace(bundle, "--input", path, "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "which has no token" in printed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "neither TEXT nor --input"),
        ((TEXT, "--input", "rows.jsonl"), "both TEXT and --input"),
        ((TEXT, "--share", "0"), "share: found 0.0"),
        ((TEXT, "--cover", "2"), "cover: found 2.0"),
        ((TEXT, "--floor", "0"), "a floor of 0.0"),
        ((TEXT, "--html", "no/such/folder/out.html"), "expected a file to write to"),
    ],
)
def test_wrong_calls_are_refused(
    bundle: Path, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invalid calls exit with 2 and say what was expected."""
    assert trace(bundle, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_bundle_without_an_analysis_graph_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how to export an analysis graph."""
    assert trace(make_bundle(tmp_path / "plain", {}), TEXT) == 2
    assert "layerguard export MODEL -o BUNDLE --analysis" in capsys.readouterr().err


def test_an_analysis_graph_that_gives_something_else_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph without the outputs that the manifest lists is a BundleError."""
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    shutil.copyfile(other / "score.onnx", other / "analysis.onnx")
    manifest = Bundle.load(bundle).manifest
    seal(other, replace(manifest, files={}))
    assert trace(other, TEXT) == 2
    assert "analysis.onnx" in capsys.readouterr().err


def test_the_page_stands_alone(bundle: Path, tmp_path: Path) -> None:
    """The page has inline plots, no external file, and escaped texts."""
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"id": "<script>alert(1)</script>", "text": TEXT}, {"text": "the low hills"}],
    )
    page = tmp_path / "trace.html"
    assert trace(bundle, "--input", rows, "--html", page) == 0
    parsed = check_page(page.read_text(encoding="utf-8"))
    assert len(parsed.charts) == 6
    assert "<script>alert(1)</script>" in [line[0] for line in parsed.table("prompt")]
    assert "tiny" in parsed.text


def test_the_command_needs_numpy_and_the_runtime_alone(bundle: Path) -> None:
    """A whole trace imports neither PyTorch nor scikit-learn nor SciPy."""
    code = (
        "import sys; from layerguard.runtime.cli import main;"
        f"assert main(['trace', {str(bundle)!r}, {TEXT!r}, '--threads', '1']) == 0;"
        "print({'torch', 'transformers', 'sklearn', 'scipy', 'onnx', 'safetensors'}"
        ".intersection(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
