"""Several processes on one address: they heal, they stop together, and none outlives the first."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import MutableSequence
from pathlib import Path

import httpx
import pytest

from layerguard.runtime.server import processes
from tests.runtime.server.processes import COMMAND, PATIENCE_S, check, served, wait_until


def _ids(process: subprocess.Popen[str], number: int) -> list[int]:
    """The ids of the next processes that the server says it started."""
    assert process.stderr is not None
    found: list[int] = []
    while len(found) < number:
        match = re.search(r"process \d has id (\d+)", process.stderr.readline())
        found += [int(match[1])] if match else []
    return found


def _started(process: subprocess.Popen[str], port: int) -> list[int]:
    """The ids of both processes, once they answer."""
    wait_until(lambda: _answers(port + 1) and _answers(port + 2), PATIENCE_S)
    return _ids(process, 2)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_process_that_is_killed_is_started_again(sound: Path) -> None:
    """The other one answers meanwhile; SIGTERM ends all of them, with 0."""
    with served(sound, "--processes", "2") as (process, port):
        ids = _started(process, port)
        os.kill(ids[0], signal.SIGKILL)
        wait_until(lambda: not _answers(port + 1), PATIENCE_S)
        assert check(port).status_code == 200
        wait_until(lambda: _answers(port + 1), PATIENCE_S)
        ids[:1] = _ids(process, 1)
        assert check(port + 1).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "Traceback" not in log
        assert not any(Path(f"/proc/{one}").exists() for one in ids)


def test_no_process_outlives_the_one_that_started_it(sound: Path) -> None:
    """Not even if that one was killed."""
    with served(sound, "--processes", "2") as (process, port):
        ids = _started(process, port)
        process.kill()
        process.wait(PATIENCE_S)
        try:
            wait_until(lambda: not any(map(_is_running, ids)), PATIENCE_S / 2)
        finally:  # one that is left would keep the log open, for which ``served`` waits
            for one in filter(_is_running, ids):
                os.kill(one, signal.SIGKILL)
        assert not _answers(port)


def _is_running(process_id: int) -> bool:
    """Whether it exists and is no zombie, which only waits for whoever adopted it."""
    try:
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


def test_processes_that_cannot_serve_end_the_server(sound: Path, tmp_path: Path) -> None:
    """With the code of a single one, and its sentence; none is started again and again."""
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    command = [*COMMAND, str(sound), f"broken={tmp_path}", "--port", "0", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert "is not served" in done.stderr
    assert "Traceback" not in done.stderr


def _hang_once(marker: str, counts: MutableSequence[int], number: int) -> None:
    """Count once, then stand still; started again, end the supervisor."""
    if Path(marker).exists():
        os.kill(os.getppid(), signal.SIGTERM)
        return
    counts[number] += 1
    Path(marker).touch()
    time.sleep(PATIENCE_S)


def test_a_process_that_hangs_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its count stands still."""
    monkeypatch.setattr(processes, "_LOOK_S", 0.2)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    began = time.monotonic()
    try:
        code = processes.Supervisor(1, _hang_once, (str(tmp_path / "marker"),)).run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert code == 0
    assert "process 0 hangs, and is killed" in caplog.text
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_process_that_serves_is_not_taken_for_one_that_hangs(sound: Path, tmp_path: Path) -> None:
    """Looks come faster here than counts, which come every second."""
    program = """
from layerguard.runtime.cli import main
from layerguard.runtime.server import processes
if __name__ == "__main__":
    processes._LOOK_S = 0.2
    raise SystemExit(main())
"""
    script = tmp_path / "serve.py"
    script.write_text(program, encoding="utf-8")
    command = (sys.executable, str(script), "serve")
    with served(sound, "--processes", "2", command=command) as (process, port):
        ids = _started(process, port)
        time.sleep(2 * processes.HUNG_LOOKS * 0.2)
        assert all(map(_is_running, ids))
