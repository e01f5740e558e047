"""``/v1/stream`` by WebSocket, with the client of the package websockets."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("websockets", reason="needs layerguard[ws]")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests import tiny_decoder
from tests.runtime.server.processes import PATIENCE_S, check, metric, served, wait_until

_REQUEST = {"prompt": "the river"}
_CHUNKS = ["the garden", " was quiet", " before rain"]
_HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nhost: guard\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)
_WITHOUT = """
import sys
sys.modules["websockets"] = None
from layerguard.runtime.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""
_SLOW = """
import sys, time
from layerguard.runtime.cli import main
from layerguard.runtime.server.streams import GrowingAnswer

own = GrowingAnswer.read

def slow(self, text):
    time.sleep(3 if text else 0)
    return own(self, text)

GrowingAnswer.read = slow
sys.exit(main(["serve", *sys.argv[1:]]))
"""

_BROKEN = """
import sys
from layerguard.runtime.cli import main
from layerguard.runtime.server.streams import GrowingAnswer

def broken(self, text):
    raise RuntimeError("a secret of the machine")

GrowingAnswer.read = broken
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is read token by token."""
    return tiny_decoder.make_bundle(tmp_path_factory.mktemp("decoder") / "bundle")


@pytest.fixture(scope="module")
def port(decoder: Path) -> Iterator[int]:
    """A server with small limits."""
    with served(decoder, "--body-bytes", "2000", "--stream-idle-s", "0.7") as (_, port):
        yield port


def _open(port: int, **headers: str) -> ClientConnection:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return connect(
        f"ws://127.0.0.1:{port}/v1/stream", additional_headers=named, open_timeout=PATIENCE_S
    )


def _asked(client: ClientConnection, message: Any) -> Any:
    client.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
    return json.loads(client.recv(PATIENCE_S))


def _closed(client: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server closes, next."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(PATIENCE_S)
    received = caught.value.rcvd
    assert received is not None
    return received.code, received.reason


def _frame(message: Any) -> bytes:
    """A short message as a client's frame; the mask is all zeros."""
    content = json.dumps(message).encode()
    assert len(content) < 126
    return bytes((0x81, 0x80 | len(content), 0, 0, 0, 0)) + content


def _flood(client: socket.socket) -> None:
    """Send messages until the server takes no more."""
    while True:
        client.sendall(_frame({"chunk": ""}) * 1000)


def _received(client: socket.socket) -> bytes:
    """What comes next; nothing if the server has closed the connection."""
    try:
        return client.recv(1 << 16)
    except ConnectionResetError:
        return b""


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _untimed(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in verdict.items() if name != "timings_ms"}


def test_the_messages_are_the_lines_of_the_post(port: int) -> None:
    """In order, text or bytes; the end gives the last verdict again and closes."""
    sent = [_REQUEST, *({"chunk": chunk} for chunk in _CHUNKS)]
    body = "".join(json.dumps(one) + "\n" for one in sent)
    lines = httpx.post(f"http://127.0.0.1:{port}/v1/stream", content=body).text.splitlines()
    with _open(port) as client:
        found = [_asked(client, one) for one in sent[:-1]]
        found.append(_asked(client, json.dumps(sent[-1]).encode()))
        assert _asked(client, {"end": True}) == found[-1]
        assert _closed(client) == (1000, "")
    assert [_untimed(one) for one in found] == [_untimed(json.loads(line)) for line in lines]
    assert [one["tokens"] for one in found] == sorted({one["tokens"] for one in found})
    wait_until(lambda: metric(port, "open_streams") == 0, 1)


@pytest.mark.parametrize(
    ("messages", "code", "status", "said"),
    [
        (["{"], 1007, 400, "message 1: found no JSON"),
        (["[]"], 1007, 400, "message 1: found list; expected an object"),
        ([{"prompt": "a", "chunk": "b"}], 1007, 400, "found 'chunk'; expected only prompt"),
        ([{"end": True}], 1007, 400, "found nothing; expected"),
        ([_REQUEST, {"chunk": 1}], 1007, 400, "chunk: found int; expected a text"),
        ([_REQUEST, {"chunk": "a" * 1500}, {"chunk": "b" * 1500}], 1009, 413, "at most 2000 bytes"),
        ([_REQUEST], 1008, 408, "found nothing for 0.7 s"),
    ],
)
def test_an_error_is_a_message_and_a_close_code(
    port: int, messages: list[Any], code: int, status: int, said: str
) -> None:
    """The verdicts before it were sent."""
    with _open(port) as client:
        for message in messages[:-1]:
            assert "blocked" in _asked(client, message)
        last = _asked(client, messages[-1])
        if status == 408:
            last = json.loads(client.recv(PATIENCE_S))
        assert last["error"]["status"] == status
        assert said in last["error"]["message"]
        closed, reason = _closed(client)
    assert closed == code
    assert said in reason


def test_one_message_that_is_too_large_is_not_received(port: int) -> None:
    """The connection ends with 1009."""
    with _open(port) as client:
        client.send(json.dumps({"prompt": "a" * 3000}))
        assert _closed(client)[0] == 1009


def test_a_get_is_told_what_is_expected(port: int) -> None:
    """426 with the protocol."""
    response = httpx.get(f"http://127.0.0.1:{port}/v1/stream")
    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"
    assert "expected a WebSocket" in response.json()["error"]["message"]


def test_a_handshake_is_refused_with_a_status(decoder: Path, tmp_path: Path) -> None:
    """Without a key, or by a page of another site; it is no error in the log.

    The others have a request id.
    """
    (tmp_path / "keys").write_text("right\n", encoding="utf-8")
    with served(decoder, "--keys-file", str(tmp_path / "keys")) as (process, port):
        for headers, status in (
            ({}, 401),
            ({"x_api_key": "wrong"}, 401),
            ({"x_api_key": "right", "origin": "http://elsewhere.example"}, 403),
            ({"x_api_key": "right", "origin": "null"}, 403),
            ({"x_api_key": "right", "origin": "http://[junk"}, 403),
        ):
            with pytest.raises(InvalidStatus) as caught:
                _open(port, **headers)
            response = caught.value.response
            assert response.status_code == status
            assert json.loads(response.body or b"")["error"]["status"] == status
        own = f"http://127.0.0.1:{port}"
        with _open(port, authorization="Bearer right", origin=own, x_request_id="mine") as client:
            assert client.response is not None
            assert client.response.headers["x-request-id"] == "mine"
            assert "blocked" in _asked(client, _REQUEST)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert "serving" in log
    assert "ERROR" not in log


def test_connections_are_bounded(decoder: Path) -> None:
    """The one too many gets 503, and the others go on."""
    with (
        served(decoder, "--connections", "3") as (_, port),
        _open(port) as first,
        _open(port) as second,
    ):
        with pytest.raises(InvalidStatus) as caught:
            _open(port)
        assert caught.value.response.status_code == 503
        for client in (first, second):
            assert "blocked" in _asked(client, _REQUEST)


def test_an_overloaded_guard_says_to_try_again(decoder: Path) -> None:
    """1013, and the texts are counted as without an answer."""
    with served(decoder, "--deadline-s", "0.001") as (_, port), _open(port) as client:
        assert _asked(client, _REQUEST)["error"]["status"] == 503
        code, reason = _closed(client)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert code == 1013
    assert "ask again later" in reason
    assert 'layerguard_shed_total{cause="deadline"} 1.0' in text


def test_a_guard_that_fails_says_no_more(decoder: Path) -> None:
    """1011; the reason is in the log alone."""
    command = (sys.executable, "-c", _BROKEN)
    with served(decoder, command=command) as (process, port):
        with _open(port) as client:
            told = _asked(client, _REQUEST)["error"]
            code, reason = _closed(client)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert (code, told["status"]) == (1011, 500)
    assert reason == told["message"] == "the guard failed; its log has the reason"
    assert "a secret of the machine" in log


def test_the_mode_and_the_audit_log_are_those_of_the_post(decoder: Path, tmp_path: Path) -> None:
    """A shadow route blocks nothing, and each verdict has a line, but the last one once."""
    key, log = tmp_path / "key", tmp_path / "log"
    key.write_bytes(b"0123456789abcdef")
    flags = ("--route-modes", "native-streams=shadow", "--audit-file", str(log))
    with served(decoder, *flags, "--audit-key-file", str(key)) as (_, port):
        with _open(port, x_request_id="mine") as client:
            found = [_asked(client, _REQUEST), _asked(client, {"chunk": "a"})]
            _asked(client, {"end": True})
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [one["mode"] for one in found] == ["shadow"] * 2
    assert [(line["contract"], line["mode"], line["request_id"]) for line in lines] == [
        ("native-streams", "shadow", "mine")
    ] * 2


def test_the_work_of_a_client_that_goes_away_ends(decoder: Path) -> None:
    """What waits for a thread never runs, and the stream is closed; a chunk takes 3 s here."""
    command = (sys.executable, "-c", _SLOW)
    with served(decoder, "--workers", "1", command=command) as (_, port), _open(port) as busy:
        with _open(port) as gone:
            for client in (busy, gone):
                _asked(client, _REQUEST)
            for client in (busy, gone):
                client.send(json.dumps({"chunk": "a"}))
            wait_until(lambda: metric(port, "queue_requests") == 1, 2)
            assert metric(port, "open_streams") == 2
        wait_until(lambda: metric(port, "queue_requests") == 0, 1)
        wait_until(lambda: metric(port, "open_streams") == 1, 1)
        assert "blocked" in json.loads(busy.recv(PATIENCE_S))


def test_a_client_that_reads_nothing_holds_up_nobody(decoder: Path) -> None:
    """Its messages wait in its connection, other clients are answered, and its stream is closed."""
    flags = ("--stream-idle-s", "1", "--workers", "1", "--body-bytes", str(1 << 30))
    with served(decoder, *flags) as (process, port):
        assert check(port).status_code == 200
        before = _resident_mb(process.pid)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(_HANDSHAKE)
            assert client.recv(100).startswith(b"HTTP/1.1 101")
            client.settimeout(3)
            client.sendall(_frame(_REQUEST))
            with pytest.raises(OSError, match=r"timed out|reset|pipe"):
                _flood(client)
            assert metric(port, "open_streams") <= 1
            assert check(port).status_code == 200
            wait_until(lambda: metric(port, "open_streams") == 0, PATIENCE_S)
            assert _resident_mb(process.pid) < before + 50
            time.sleep(2)  # longer than a client may let the server wait
            began = time.monotonic()
            while _received(client):
                assert time.monotonic() - began < 10, "the server goes on answering"


def test_a_server_that_stops_closes_with_1012(decoder: Path) -> None:
    """And ends soon, with 0."""
    with served(decoder) as (process, port), _open(port) as client:
        _asked(client, _REQUEST)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert _closed(client)[0] == 1012
        _, log = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - began < 5
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_server_without_the_library_says_what_to_install(decoder: Path) -> None:
    """501, and nothing else of the server changes."""
    with served(decoder, command=(sys.executable, "-c", _WITHOUT)) as (process, port):
        with pytest.raises(InvalidStatus) as caught:
            _open(port)
        response = caught.value.response
        assert response.status_code == 501
        message = json.loads(response.body or b"")["error"]["message"]
        assert "pip install 'layerguard[ws]'" in message
        assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert "uvicorn[standard]" not in log
