"""Processes on loopback: start one, wait until it answers, end it."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    answers: str,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
) -> Iterator[None]:
    """A process from the moment that it answers.

    Args:
        command: what to run.
        answers: an address that gives 200 once it is ready.
        log: where its output goes.
        environment: variables beside our own.
        seconds: that it may take to answer.

    Raises:
        RuntimeError: it ended, or did not answer in time; the message has the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
        try:
            _wait(process, answers, log, time.monotonic() + seconds)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], answers: str, log: Path, end: float) -> None:
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(answers, timeout=5).status_code == httpx.codes.OK:
                return
        time.sleep(0.3)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"{answers} never answered; the end of {log}:\n{tail}")
