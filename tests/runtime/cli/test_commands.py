"""Output of the serving commands: score, inspect, doctor, bench."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from layerguard.runtime import Bundle
from layerguard.runtime.cli import main
from tests.tiny import make_bundle


def _rows(folder: Path, count: int) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f'{{"id": {i}, "text": "the garden"}}\n' for i in range(count)))
    return path


@pytest.mark.parametrize("count", [1, 64, 130])
def test_json_is_one_object_a_row_and_nothing_else(
    strict: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], count: int
) -> None:
    """With ``--json`` stdout is JSON lines in the rows' order; in a pipe there is no bar."""
    assert main(["score", str(strict), "--input", str(_rows(tmp_path, count)), "--json"]) == 1
    out, err = capfd.readouterr()
    values = [json.loads(line) for line in out.splitlines()]
    assert [value["id"] for value in values] == [str(i) for i in range(count)]
    assert all(value["flagged"] for value in values)
    assert set(values[0]["readings"]) == {"lcf", "siren"}
    assert values[0]["bundle_id"] == Bundle.load(strict).id
    assert err == ""


def test_text_comes_from_standard_input(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TEXT and ``--input``, the text is read from standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("the garden"))
    assert main(["score", str(sound), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 4


@pytest.mark.parametrize(("typed", "told"), [("rows.jsonl", True), ("a" * 5000, False)])
def test_a_text_that_names_a_file_is_pointed_out(
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    told: bool,
) -> None:
    """Its rows are not read, which the verdict does not show."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    assert main(["score", str(sound), typed, "--json"]) == 0
    assert ("--input scores a file's rows" in capsys.readouterr().err) == told


@pytest.mark.parametrize("typed", [[], ["-"]], ids=["no TEXT", "-"])
@pytest.mark.parametrize("given", ["", "\n", "\r\n", "\ufeff"], ids=ascii)
def test_empty_standard_input_is_no_text(
    sound: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
    given: str,
) -> None:
    """A command before the pipe that failed, or ``< /dev/null``, is an error and not a verdict."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(given, newline=""))
    assert main(["score", str(sound), *typed]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "standard input is empty; expected a text there, or as an argument" in err


def test_standard_input_that_is_not_text_is_named(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are not UTF-8 are refused with their position."""
    stdin = io.TextIOWrapper(io.BytesIO(b"the \xff garden"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["score", str(sound)]) == 2
    assert "standard input is not utf-8 at byte 4" in capsys.readouterr().err


def test_two_sources_of_text_are_refused(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TEXT and ``--input`` together are a wrong call."""
    assert main(["score", str(sound), "x", "--input", "rows.jsonl"]) == 2
    assert "found both TEXT and --input" in capsys.readouterr().err


def test_no_source_of_text_is_refused(
    sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, a missing text is an error; the command does not wait."""
    stdin = io.StringIO()
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["score", str(sound)]) == 2
    assert "found no TEXT and no --input" in capsys.readouterr().err


def test_inspect_describes_a_bundle(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Model, states, graph, files, detectors with thresholds, each on its line."""
    assert main(["inspect", str(sound)]) == 0
    out = capsys.readouterr().out
    firsts = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert firsts == [
        "bundle", "signed", "model", "states", "text", "graph", "file", "file", "file", "detector",
        "detector", "decision", "canaries",
    ]  # fmt: skip
    assert "target FPR 5.000% (95 % interval 1.00% to 10.00%)" in out


def test_inspect_tells_the_quantisation_of_a_gguf(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Manifests of older releases lack the key, and the line is omitted."""
    value = json.loads((bundle / "manifest.json").read_bytes())
    del value["model"]["quantisation"]
    (bundle / "manifest.json").write_text(json.dumps(value))
    assert main(["inspect", str(bundle)]) == 0
    assert "GGUF" not in capsys.readouterr().out
    value["model"]["quantisation"] = "Q4_1, Q8_0, F32"
    (bundle / "manifest.json").write_text(json.dumps(value))
    assert main(["inspect", str(bundle)]) == 0
    assert "weights  stored as Q4_1, Q8_0, F32 in the GGUF file" in capsys.readouterr().out


def test_inspect_gives_the_manifest_as_json(
    sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``inspect --json`` is the manifest with the bundle's id, on one line."""
    assert main(["inspect", str(sound), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    manifest = json.loads((sound / "manifest.json").read_bytes())
    assert json.loads(line) == {"id": Bundle.load(sound).id, "signed": False, **manifest}


def test_inspect_describes_a_bundle_that_is_not_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command is shown."""
    assert main(["inspect", str(make_bundle(tmp_path / "bundle", {}))]) == 0
    assert "run `layerguard calibrate`" in capsys.readouterr().out


def test_doctor_looks_at_machine_and_bundle(
    sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finding is one line; here all are ok."""
    assert main(["doctor", str(sound)]) == 0
    out = capsys.readouterr().out
    words = [line.split()[:2] for line in out.splitlines()]
    assert {first for first, _ in words} == {"ok"}
    assert [second for _, second in words] == [
        "layerguard", "python", "kernels", "onnxruntime", "providers", "bundle", "canaries",
        "session",
    ]  # fmt: skip


def test_doctor_tells_a_wrong_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong bundle exits 2, with the finding marked; as JSON it is one object a line."""
    (bundle / "tokenizer.json").unlink()
    assert main(["doctor", str(bundle), "--json"]) == 2
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (wrong,) = [finding for finding in findings if not finding["ok"]]
    assert wrong["what"] == "bundle"
    assert "tokenizer.json is missing" in wrong["found"]


def test_bench_measures_what_it_is_asked(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row a text length, then throughput; as JSON the same in objects."""
    short = ["bench", str(sound), "--words", "0", "3", "--repeats", "1", "--threads", "1"]
    assert main([*short, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("words") for row in rows] == [0, 3, None]
    assert set(rows[-1]["checks_per_second"]) == {"1", "2"}
    assert main(short) == 0
    assert "checks per second" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--repeats", "0"], ["--words", "-1"]], ids=" ".join)
def test_bench_refuses_what_it_cannot_measure(
    sound: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    """No repeats, or fewer words than none, are a wrong call."""
    assert main(["bench", str(sound), *wrong]) == 2
    assert "expected at least 1 repeat and 0 words" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_traceback(strict: Path, tmp_path: Path) -> None:
    """``layerguard score ... | head -1`` prints no traceback."""
    rows = _rows(tmp_path, 2_000)
    call = f"{sys.executable} -m layerguard.runtime.cli score {strict} --input {rows} | head -1"
    done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_doctor_asks_for_the_device_without_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    """CUDA that this machine does not offer is the machine's fault: exit code 3."""
    assert main(["doctor", "--device", "cuda"]) == 3
    assert "layerguard[cuda]" in capsys.readouterr().out


def test_a_defect_of_ours_is_not_taken_for_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit code 1 would mean that something was flagged."""
    monkeypatch.setattr("layerguard.runtime.cli.inspect.run", lambda _: 1 // 0)
    assert main(["inspect", "anything"]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err
