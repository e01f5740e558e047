"""``--timeout``: every command that opens a graph can refuse one that does not end."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.cli import COMMANDS, command_parser, main
from tests.tiny import make_bundle

_ARGUMENTS = {
    "calibrate": ["BUNDLE", "--clean", "ROWS"],
    "import-siren": ["ROWS", "BUNDLE"],
    "recalibrate": ["BUNDLE", "--shadow", "ROWS"],
    "fuse": ["BUNDLE"],
    "score": ["BUNDLE", "the garden"],
    "generate": ["BUNDLE", "the garden"],
    "eval": ["BUNDLE", "ROWS"],
    "parity": ["BUNDLE", "BUNDLE", "ROWS"],
    "drift fit": ["BUNDLE", "--runs", "ROWS", "-o", "OUT"],
    "drift check": ["OUT", "BUNDLE"],
    "audit": ["ROWS", "ROWS", "--bundle", "BUNDLE", "--corpus", "ROWS"],
    "trace": ["BUNDLE", "the garden"],
    "doctor": ["BUNDLE"],
    "bench": ["BUNDLE"],
}


def test_every_command_that_opens_a_graph_has_the_option() -> None:
    """Those with ``--device``, and no others; the server has a setting, Triton opens its own."""
    asked = COMMANDS.keys() - {"serve", "export-triton"}
    usages = {name: command_parser(name).format_usage() for name in asked}
    opening = {name for name, usage in usages.items() if "--device" in usage}
    assert opening == {name for name, usage in usages.items() if "--timeout" in usage}
    assert opening == _ARGUMENTS.keys()


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_a_command_refuses_a_bundle_that_does_not_load_in_time(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """It opens nothing in its own process, and says what to do."""

    def expired(command: Any, *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("layerguard.runtime.trial.subprocess.run", expired)
    monkeypatch.setattr("layerguard.runtime.model.session.Session._open", _opened)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "the garden", "label": 0}) + "\n")
    made = {"BUNDLE": make_bundle(tmp_path / "bundle", {}), "ROWS": rows, "OUT": tmp_path / "out"}
    arguments = [str(made.get(argument, argument)) for argument in _ARGUMENTS[name]]
    assert main([*name.split(), *arguments, "--timeout", "7"]) == 2
    printed = "".join(capsys.readouterr())
    assert "it was not loaded within 7 s: a graph, tokenizer or template may not end" in printed


def _opened(_: Any) -> None:
    pytest.fail("a graph was opened")
