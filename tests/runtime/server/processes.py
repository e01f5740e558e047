"""A server in a process of its own, and raw connections to it."""

import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 60
COMMAND = (sys.executable, "-m", "layerguard.runtime.cli", "serve")


@contextmanager
def served(
    bundle: Path, *flags: str, command: tuple[str, ...] = COMMAND
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process and its port; it is ready."""
    port = _free_port()
    process = subprocess.Popen(
        [*command, f"main={bundle}", "--port", str(port), "--threads", "1", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_ready(process, port)
        yield process, port
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    """A port that is free, as are the next two: those of single processes.

    Below the range from which the system takes ports of connections, one of which could take them.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), ExitStack() as held:
            for each in range(port, port + 3):
                held.enter_context(socket.create_server(("127.0.0.1", each)))
            return port


def _wait_ready(process: subprocess.Popen[str], port: int) -> None:
    def ready() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, PATIENCE_S)
    except AssertionError as error:
        process.kill()
        raise AssertionError(f"the server did not start: {process.communicate()[1]}") from error


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds; an error if it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"it did not hold within {seconds} s"
        time.sleep(0.02)


def check(port: int, text: str = "the garden", **more: Any) -> httpx.Response:
    """The response to one text."""
    url = f"http://127.0.0.1:{port}/v1/check"
    return httpx.post(url, json={"text": text, **more}, timeout=PATIENCE_S)


def metric(port: int, name: str) -> float:
    """The value of a metric without labels."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).text
    found = re.search(rf"^layerguard_{name} (\S+)$", text, re.MULTILINE)
    assert found, f"no metric {name}"
    return float(found[1])


def head(path: str, *headers: str) -> bytes:
    """The head of a POST."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: guard", *headers, "", ""]).encode()


def chunk(value: Any) -> bytes:
    """A line with a JSON object, as a chunk of a body."""
    line = json.dumps(value).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)
