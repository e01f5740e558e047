"""Real connections to a real server: clients that go away, and streams in both directions."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_decoder
from tests.runtime.server.processes import (
    PATIENCE_S,
    check,
    chunk,
    head,
    metric,
    served,
    wait_until,
)

_SLOW = """
import sys, time
from layerguard.runtime.cli import main
from layerguard.runtime.guard import Guard

own = Guard.check_requests

def slow(*arguments, **options):
    time.sleep(0.2)
    return own(*arguments, **options)

Guard.check_requests = slow
sys.exit(main(["serve", *sys.argv[1:]]))
"""
_TEXTS = 200
_OPEN_STREAM = head("/v1/stream", "transfer-encoding: chunked")


@pytest.fixture(scope="module")
def slow_port(sound: Path) -> Iterator[int]:
    """A server that checks one text at a time, in 0.2 s."""
    command = (sys.executable, "-c", _SLOW)
    with served(sound, "--workers", "1", "--batch-rows", "1", command=command) as (_, port):
        yield port


@pytest.fixture(scope="module")
def stream_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server of a decoder, which reads answers token by token."""
    bundle = tiny_decoder.make_bundle(tmp_path_factory.mktemp("decoder") / "bundle")
    with served(bundle) as (_, port):
        yield port


def test_a_client_that_goes_away_frees_its_work_within_a_second(slow_port: int) -> None:
    """Its 200 texts would take 40 s; after it has gone, the next client is answered at once."""
    body = json.dumps({"requests": [{"text": f"text {n}"} for n in range(_TEXTS)]}).encode()
    with socket.create_connection(("127.0.0.1", slow_port), PATIENCE_S) as client:
        client.sendall(head("/v1/check", f"content-length: {len(body)}") + body)
        wait_until(lambda: metric(slow_port, "queue_requests") > _TEXTS / 2, PATIENCE_S)
    wait_until(lambda: metric(slow_port, "queue_requests") == 0, 1)
    assert check(slow_port, deadline_ms=5000).status_code == 200


def test_each_line_is_answered_before_the_next_is_sent(stream_port: int) -> None:
    """The response begins while the request's body is still being written."""
    with socket.create_connection(("127.0.0.1", stream_port), PATIENCE_S) as client:
        client.sendall(_OPEN_STREAM + chunk({"prompt": "the river"}))
        with client.makefile("rb") as answers:
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while answers.readline() != b"\r\n":
                pass
            tokens = []
            for word in ("the garden", " was quiet", " before rain"):
                tokens.append(_verdict(answers)["tokens"])
                client.sendall(chunk({"chunk": word}))
            tokens.append(_verdict(answers)["tokens"])
            client.sendall(b"0\r\n\r\n")
            assert answers.readline() == b"0\r\n"
    assert tokens == sorted(set(tokens)), "each verdict has read more than the one before"


def test_a_stream_whose_client_goes_away_is_closed_within_a_second(stream_port: int) -> None:
    """Its caches are freed."""
    with socket.create_connection(("127.0.0.1", stream_port), PATIENCE_S) as client:
        client.sendall(_OPEN_STREAM + chunk({"prompt": "the river"}))
        wait_until(lambda: metric(stream_port, "open_streams") == 1, PATIENCE_S)
    wait_until(lambda: metric(stream_port, "open_streams") == 0, 1)


def _verdict(answers: socket.SocketIO) -> dict[str, int]:
    """The object of the next chunk."""
    answers.readline()
    found: dict[str, int] = json.loads(answers.readline())
    answers.readline()
    return found
