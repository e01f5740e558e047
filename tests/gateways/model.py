"""A model behind a gateway, as OpenAI's interface shows one: it answers with chosen texts."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PAUSE_S = 0.005
"""Between two words of a stream, so that they arrive one by one."""


@contextlib.contextmanager
def serving(answers: Mapping[str, str], otherwise: str) -> Iterator[str]:
    """The address of a model, up to and with ``/v1``.

    Args:
        answers: what it answers to a prompt.
        otherwise: what it answers to all others.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith("/responses"):
                _respond(self, answers.get(body["input"], otherwise), stream=body.get("stream"))
                return
            content = body["messages"][-1]["content"]
            prompt = content if isinstance(content, str) else content[0]["text"]
            text = answers.get(prompt, otherwise)
            if body.get("stream"):
                _stream(self, _called(text) if body.get("tools") else _said(text))
            else:
                _answer(self, text)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def _respond(handler: BaseHTTPRequestHandler, text: str, *, stream: bool | None) -> None:
    """Answer as the Responses API does."""
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "1", "role": "assistant", "content": [part]}
    response = {"id": "1", "object": "response", "status": "completed", "output": [item]}
    if not stream:
        body = json.dumps(response).encode()
        _head(handler, "application/json", len(body))
        handler.wfile.write(body)
        return
    place = {"item_id": "1", "output_index": 0, "content_index": 0}
    parts = [
        {"type": "response.output_text.delta", **place, "delta": word} for word in _words(text)
    ]
    events = [*parts, {"type": "response.completed", "response": response}]
    _send(handler, [_event(event) for event in events])


def _answer(handler: BaseHTTPRequestHandler, text: str) -> None:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = json.dumps(_form("chat.completion", choice) | {"usage": usage}).encode()
    _head(handler, "application/json", len(body))
    handler.wfile.write(body)


def _said(text: str) -> list[dict[str, Any]]:
    """The deltas of an answer of a text."""
    return [{"role": "assistant", "content": ""}, *({"content": word} for word in _words(text))]


def _called(text: str) -> list[dict[str, Any]]:
    """The deltas of an answer that calls a tool with a text."""
    function = {"name": "look", "arguments": ""}
    first = {"index": 0, "id": "1", "type": "function", "function": function}
    parts = [
        {"index": 0, "function": {"arguments": word}} for word in _words(json.dumps({"for": text}))
    ]
    return [{"role": "assistant", "tool_calls": [one]} for one in (first, *parts)]


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split()]


def _stream(handler: BaseHTTPRequestHandler, deltas: list[dict[str, Any]]) -> None:
    events = [_form("chat.completion.chunk", {"index": 0, "delta": delta}) for delta in deltas]
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events.append(_form("chat.completion.chunk", last))
    _send(handler, [*map(_event, events), b"data: [DONE]\n\n"])


def _event(event: Mapping[str, Any]) -> bytes:
    return b"data: %s\n\n" % json.dumps(event).encode()


def _send(handler: BaseHTTPRequestHandler, parts: list[bytes]) -> None:
    """Send events one by one."""
    _head(handler, "text/event-stream", sum(map(len, parts)))
    with contextlib.suppress(ConnectionError):
        for part in parts:
            handler.wfile.write(part)
            time.sleep(_PAUSE_S)


def _form(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "object": kind, "created": 1, "model": "chat", "choices": [choice]}


def _head(handler: BaseHTTPRequestHandler, kind: str, length: int) -> None:
    handler.send_response(200)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(length))
    handler.end_headers()
