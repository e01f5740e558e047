"""What is left of a cluster after its end: nothing but what was to be kept."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime.cli import main
from tests.calibration.synthetic import sentences, write_rows
from tests.docs.blocks import blocks
from tests.integrations.bundles import TOY, flagging
from tests.scale import page
from tests.scale.cluster import ROOT, VARIABLES

pytest.importorskip("ray", reason="needs Ray: run `make ray`")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a cluster that served, ran a job and ended, and what it printed."""
    folder = tmp_path_factory.mktemp("ended")
    bundle = flagging(folder / "guard")
    (folder / "audit.key").write_text("k" * 32, encoding="utf-8")
    write_rows(folder / "rows.jsonl", [{"text": text} for text in sentences(20, seed=0)])
    command = [sys.executable, "-m", "tests.scale.lifecycle", str(bundle), str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_no_process_is_left(ended: tuple[Path, dict[str, Any]]) -> None:
    """Of the cluster, its proxy, the replicas and the workers of the job."""
    _, found = ended
    ran = " ".join(found["ran"])
    assert all(name in ran for name in ("raylet", "gcs_server", "ServeReplica", "ProxyActor")), ran
    assert found["left"] == []


def test_the_job_was_done(ended: tuple[Path, dict[str, Any]]) -> None:
    """Beside the replicas, on the same two processors."""
    folder, found = ended
    assert found["rows"] == 20
    assert len((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 20


def test_each_replica_leaves_a_whole_audit_log(ended: tuple[Path, dict[str, Any]]) -> None:
    """A chain of its own, of all that it answered."""
    folder, _ = ended
    logs = sorted(folder.glob("audit.jsonl.*"))
    assert len(logs) == 2
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 12
    for log in logs:
        key = str(folder / "audit.key")
        assert main(["audit-log", "verify", str(log), "--key-file", key]) == 0


def test_the_command_of_the_documentation_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """On Ray Serve's own port, 8000."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 of this machine is in use")
    flagging(tmp_path / "guard")
    command = next(
        block.text for block in blocks(page.PAGE, "sh") if block.text.startswith("serve run")
    )
    words = [str(Path(sys.executable).with_name("serve")), *shlex.split(command)[1:]]
    log = (tmp_path / "log").open("wb")
    variables = {**os.environ, **VARIABLES}
    with log, subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, env=variables) as run:
        try:
            answer = _asked(run, time.monotonic() + 120)
            assert answer["flagged"] is True, (tmp_path / "log").read_text(encoding="utf-8")
        finally:
            run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0


def _asked(run: "subprocess.Popen[bytes]", until: float) -> Any:
    """The answer to a check, as soon as there is one."""
    while run.poll() is None and time.monotonic() < until:
        try:
            body = {"text": TOY.flagged}
            answer = httpx.post("http://127.0.0.1:8000/v1/check", json=body, timeout=30)
            return answer.raise_for_status().json()
        except httpx.HTTPError:
            time.sleep(0.5)
    return {"flagged": None}
