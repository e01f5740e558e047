"""A client that sends all of a body before it reads gets its contract's answer."""

import json
import socket
from pathlib import Path

from tests.runtime.server.processes import PATIENCE_S, head, served

_MOST = 100_000


def test_a_text_that_is_too_large_is_a_jailbreak_for_nemo(sound: Path) -> None:
    """NeMo would let the text pass if its connection were closed while it sends."""
    body = json.dumps({"input": "a" * 10 * _MOST}).encode()
    with (
        served(sound, "--body-bytes", str(_MOST)) as (_, port),
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client,
    ):
        client.sendall(head("/v1/classify", f"content-length: {len(body)}", "connection: close"))
        for at in range(0, len(body), _MOST):
            client.sendall(body[at : at + _MOST])
        with client.makefile("rb") as response:
            status = response.readline()
            answer = json.loads(response.read().partition(b"\r\n\r\n")[2])
    assert status == b"HTTP/1.1 200 OK\r\n"
    assert answer["jailbreak"] is True
    assert f"at most {_MOST} bytes" in answer["error"]["message"]
