"""Rows and bundles cannot steer the terminal or forge lines, whatever command prints them."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard
from layerguard.runtime.cli import main
from layerguard.runtime.generation.event import Event
from layerguard.runtime.packing import pack
from layerguard.runtime.printable import printable
from tests import tiny_analysis, tiny_decoder
from tests.drift_monitors import make_base, make_checkpoint, make_monitor
from tests.runtime.tamper import edit_manifest

HOSTILE = "a\x1b[2J\rb\nbundle   0000, every file verified\x9b31m\u202ec\u2066d\x07\u2028e\x7f"
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FORGED = re.compile(r"^\W*bundle   0000", re.MULTILINE)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints, on both streams; nothing of it steers a terminal."""
    main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert not _CONTROLS.search(text), repr(text)
    assert not _FORGED.search(text), text
    return text


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows with hostile values in every key, one bad row, and one that is no JSON."""
    path = tmp_path / "rows.jsonl"
    hostile = dict.fromkeys(("id", "text", "domain", "source", "target"), HOSTILE)
    lines = [json.dumps({**hostile, "label": label}) for label in (0, 1, HOSTILE)]
    path.write_text("\n".join([*lines, f"{{{HOSTILE.splitlines()[0]}"]), encoding="utf-8")
    return path


@pytest.fixture
def hostile(bundle: Path) -> Path:
    """A bundle with hostile texts in its manifest."""

    def edit(value: Any) -> None:
        value["model"].update(id=HOSTILE, architecture=HOSTILE, revision=HOSTILE)
        value["model"].update(quantisation=HOSTILE)
        value["detectors"]["lcf"].update(method=HOSTILE)

    return edit_manifest(bundle, edit)


@pytest.mark.parametrize("command", [["inspect"], ["doctor"], ["bench", "--repeats", "1"]])
def test_commands_on_a_hostile_bundle(
    hostile: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """What the bundle says of itself is escaped."""
    text = run(capsys, command[0], hostile, *command[1:])
    assert command[0] != "inspect" or r"a\x1b[2J\rb\nbundle" in text


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_score_and_parity_on_hostile_rows(
    hostile: Path, sound: Path, rows: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """Ids, domains and bad rows are escaped, also in JSON."""
    text = run(capsys, "score", hostile, "--input", rows, *flags)
    assert "found" in text
    run(capsys, "score", hostile, HOSTILE, "--domain", HOSTILE, *flags)
    run(capsys, "parity", hostile, sound, rows, *flags)


def test_list_shows_a_hostile_bundle(
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The manifests of installed bundles are not verified, and their faults quote them."""
    shutil.unpack_archive(pack(hostile, "acme-guard", "1.0", tmp_path), tmp_path / "site", "zip")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "acme-guard" in run(capsys, "list")
    installed = tmp_path / "site/layerguard_bundles/acme_guard"
    edit_manifest(installed, lambda value: value.update({HOSTILE: 1}))
    assert "not valid" in run(capsys, "list")


def test_errors_are_escaped(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of files, keys of the manifest and words of other libraries."""
    (bundle / "x\x1b[2Jy\nbundle   0000").touch()
    run(capsys, "inspect", bundle)
    run(capsys, "inspect", tmp_path / "none\x1b[2J\r\u202e")
    run(capsys, "score", bundle, "--input", tmp_path / "none\x1b[2J\r\u202e")
    assert "no command" in run(capsys, HOSTILE)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_calibration_commands_on_hostile_rows(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """Domains and sources reach the summaries; texts reach the tables of eval and trace."""
    words = ("the", "garden", "was", "quiet", "rain", "came", "over", "hills", "boats")
    lines = [
        json.dumps({
            "id": HOSTILE + str(i), "domain": HOSTILE, "source": HOSTILE, "target": "garden",
            "text": f"{HOSTILE} {words[i % 9]} {words[i // 9 % 9]} {words[i % 7]} {i}",
            "label": i % 2,
        })
        for i in range(160)
    ]  # fmt: skip
    rows = tmp_path / f"rows{HOSTILE[1:4]}.jsonl"
    rows.write_text("\n".join([*lines, '{"text": 1}', '{"label": "\\u001b[2J"}']))
    clean = tmp_path / "clean.jsonl"
    clean.write_text("\n".join(lines[::2]).replace("garden", "river"))
    run(capsys, "eval", bundle, rows, *flags)
    if not flags:
        assert "guard: flags" in run(
            capsys, "calibrate", bundle, "--clean", clean, "--labelled", rows, "--target-fpr", "0.1"
        )
        fresh = tmp_path / "fresh.jsonl"
        fresh.write_text(clean.read_text().replace("river", "boats"))
        assert "threshold" in run(capsys, "recalibrate", bundle, "--shadow", fresh)


def test_a_generated_answer_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line breaks and tabs of an answer are kept, and nothing else that steers a terminal."""
    generate = Guard.generate

    def hostile(*arguments: Any, **named: Any) -> Iterator[Event]:
        for event in generate(*arguments, **named):
            yield replace(event, text="a\n\tb\x1b[2J\u202e")

    monkeypatch.setattr(Guard, "generate", hostile)
    bundle = tiny_decoder.make_bundle(tmp_path / "bundle")
    main(["generate", str(bundle), "the garden", "--max-new-tokens", "2", "--on-flag", "log"])
    assert "a\n\tb\\x1b[2J\\u202e" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_drift_monitor_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """Names of traits and of the checkpoint's model come from outside."""
    base = make_base(tmp_path / "base")
    monitor = make_monitor(tmp_path / "monitor", base)
    edit_manifest(monitor, lambda value: value["traits"][0].update(name=HOSTILE, positive=HOSTILE))
    checkpoint = make_checkpoint(base, tmp_path / "checkpoint", 0.6)
    edit_manifest(checkpoint, lambda value: value["model"].update(id=HOSTILE))
    assert "misalignment" in run(capsys, "drift", "check", monitor, checkpoint, *flags)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_trace_is_escaped(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    """Ids and texts of the prompts are in its tables."""
    bundle = tiny_analysis.make_traceable(tmp_path / "bundle")
    text = run(capsys, "trace", bundle, "--input", rows, *flags)
    assert "label: found" in text
    assert flags or "Layer robustness" in text


@pytest.mark.parametrize("text", ["plain", "日本語\u3000です", "\U0001f469\u200d\U0001f680", "été"])
def test_ordinary_text_is_printed_as_it_is(text: str) -> None:
    """Wide spaces and the joiners of emoji are text."""
    assert printable(text) == text
