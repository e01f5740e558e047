"""The balancer of call ids, run for real: calls of one id reach one replica."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import pytest

from tests.deploy.tools import DEPLOY, accepts, tool

_SETTINGS = DEPLOY / "kubernetes" / "call-ids" / "haproxy.cfg"
_REPLICAS = 3


class _Replica(BaseHTTPRequestHandler):
    """Answers with its own port."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer()

    def _answer(self) -> None:
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Say nothing."""


@contextmanager
def _replica() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Replica)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _balancer(program: str, folder: Path, replicas: list[int]) -> Iterator[int]:
    """The balancer with the settings of the repository; only addresses differ."""
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = _SETTINGS.read_text(encoding="utf-8")
    servers = "\n".join(f"  server r{n} 127.0.0.1:{r}" for n, r in enumerate(replicas))
    template = next(line for line in text.splitlines() if line.startswith("  server-template"))
    text = text.replace(template, servers).replace("bind :8080", f"bind 127.0.0.1:{port}")
    path = folder / "haproxy.cfg"
    path.write_text(text, encoding="utf-8")
    process = subprocess.Popen([program, "-db", "-f", path], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _reached(port: int, body: object, headers: dict[str, str] | None = None) -> int:
    for _ in range(200):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/", json.dumps(body), headers or {})
            response = connection.getresponse()
            content = response.read()
        except ConnectionError:
            time.sleep(0.05)
            continue
        finally:
            connection.close()
        if response.status == 200:
            return int(content)
        time.sleep(0.05)
    raise AssertionError("the balancer never answered")


@pytest.fixture
def haproxy() -> str:
    """The program."""
    return tool("haproxy", "Debian's package haproxy")


def test_the_settings_are_valid(haproxy: str) -> None:
    """As haproxy itself says."""
    assert "Configuration file is valid" in accepts(haproxy, "-c", "-f", _SETTINGS)


def test_calls_of_one_id_reach_one_replica(haproxy: str, tmp_path: Path) -> None:
    """Wherever the id stands in the body, and in the header; other ids reach all of them."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(_replica()) for _ in range(_REPLICAS)]
        port = stack.enter_context(_balancer(haproxy, tmp_path, replicas))
        first = {n: _reached(port, {"litellm_call_id": f"call-{n}"}) for n in range(30)}
        long = "a text " * 20_000
        again = {
            n: _reached(port, {"texts": [long], "litellm_call_id": f"call-{n}"}) for n in range(30)
        }
        headers = {_reached(port, {}, {"x-call-id": "one"}) for _ in range(5)}
        without = {_reached(port, {"text": "a"}) for _ in range(30)}
    assert again == first
    assert set(first.values()) == set(replicas)
    assert len(headers) == 1
    assert without == set(replicas)


def test_only_the_ids_of_a_replica_that_went_move(haproxy: str, tmp_path: Path) -> None:
    """The others stay where their state is."""
    with ExitStack() as stack:
        kept = [stack.enter_context(_replica()) for _ in range(_REPLICAS - 1)]
        port = stack.enter_context(_balancer(haproxy, tmp_path, kept))
        with _replica() as third:
            (tmp_path / "more").mkdir()
            with _balancer(haproxy, tmp_path / "more", [*kept, third]) as wider:
                before = {n: _reached(wider, {"litellm_call_id": f"call-{n}"}) for n in range(40)}
        after = {n: _reached(port, {"litellm_call_id": f"call-{n}"}) for n in range(40)}
    moved = {n for n in before if before[n] != after[n]}
    assert moved == {n for n in before if before[n] not in kept}
