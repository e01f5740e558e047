"""``layerguard serve`` as a process: start, signals, exit codes, hostile connections."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.runtime.server.processes import COMMAND, PATIENCE_S, check, served


def test_a_server_checks_reloads_and_ends_with_0(sound: Path) -> None:
    """SIGHUP loads the bundles again, SIGTERM ends the process."""
    with served(sound) as (process, port):
        assert check(port).json()["blocked"] is False
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"on 127.0.0.1 port {port}" in log
    assert "reloaded: main (" in log
    assert "Traceback" not in log


def test_hostile_connections_end_and_stall_nobody(sound: Path) -> None:
    """A head without an end, one that is too slow, and a body that is too long."""
    flags = ("--header-bytes", "4096", "--read-s", "1", "--body-bytes", "1000")
    with served(sound, *flags) as (_, port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as large:
            head = b"GET / HTTP/1.1\r\na: " + b"x" * 100_000_000
            with pytest.raises(OSError, match=r"reset|pipe"):
                large.sendall(head)
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as many:
            many.sendall(b"GET /livez HTTP/1.1\r\n" + b"a: 0123456789\r\n" * 400 + b"\r\n")
            assert b"Expected a head of at most 4096 bytes" in many.recv(4096)
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as slow:
            slow.sendall(b"GET /livez HT")
            began = time.monotonic()
            assert check(port).status_code == 200
            with suppress(ConnectionResetError):
                assert slow.recv(10) == b""
            assert time.monotonic() - began < PATIENCE_S / 2
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as body:
            body.sendall(b"POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
            assert b"408 Request Timeout" in body.recv(4096)
        assert check(port, "x" * 2000).status_code == 413
        assert check(port).status_code == 200


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--workers", "0"), 2, "--workers: found 0; expected a whole number, at least 1"),
        (("--keys-file", "/nowhere/keys"), 2, "expected a file with one key per line"),
        (("--tls-certificate", "/nowhere/pem"), 2, "expected a certificate chain"),
        (("--host", "192.0.2.1"), 3, "cannot listen on 192.0.2.1 port 0"),
    ],
)
def test_what_cannot_be_served_ends_with_a_sentence(
    sound: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    """And with the exit code of a wrong call, or of a wrong machine."""
    command = [*COMMAND, str(sound), "--port", "0"]
    done = subprocess.run(
        [*command, *flags], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_with_faults_is_notserved(sound: Path, tmp_path: Path) -> None:
    """The server ends with the sentences of ``Guard.load``."""
    (tmp_path / "manifest.json").write_text(json.dumps({}), encoding="utf-8")
    command = [*COMMAND, str(sound)]
    done = subprocess.run(
        [*command, f"broken={tmp_path}", "--port", "0"],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is not served" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_without_its_extra_says_which_one_it_needs(sound: Path) -> None:
    """A missing package is a wrong machine, not a bug."""
    code = (
        "import sys; sys.modules['uvicorn'] = None; from layerguard.runtime.cli import main;"
        f"sys.exit(main(['serve', {os.fspath(sound)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert (
        "it needs uvicorn, which is not installed: pip install 'layerguard[serve]'" in done.stderr
    )
