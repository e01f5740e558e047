"""A client of an ASGI application that sees every message, and a model that writes an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Application = Callable[..., Awaitable[None]]


@dataclass
class Answer:
    """What came over the wire.

    Attributes:
        status: of the answer.
        headers: of the answer.
        parts: of its body, as they were sent; none is empty.
        complete: whether the body was ended.
    """

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of OpenAI's form of an error."""
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return str(self.json["error"]["code"])

    @property
    def events(self) -> list[str]:
        """The data of the server-sent events."""
        return [event[6:] for event in self.body.decode().split("\n\n") if event[:6] == "data: "]


async def ask(
    app: Application,
    body: Any,
    path: str = "/v1/chat/completions",
    *,
    method: str = "POST",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Answer:
    """Send a request, in two parts, and take the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    waiting = [
        {"type": "http.request", "body": data[:7], "more_body": True},
        {"type": "http.request", "body": data[7:], "more_body": False},
    ]
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0
            answer.status, answer.headers = message["status"], dict(message["headers"])
        else:
            assert answer.status
            assert not answer.complete
            answer.parts += [part] if (part := message.get("body", b"")) else []
            answer.complete = not message.get("more_body", False)

    extensions = {"http.response.pathsend": {}}
    scope = {"type": "http", "method": method, "path": path, "headers": [*headers]}
    await app({**scope, "extensions": extensions}, receive, send)
    return answer


@dataclass
class Model:
    """An application that answers each request with the same parts.

    Attributes:
        parts: of the body.
        content_type: of the answer.
        status: of the answer.
        seen: scope and body of each request that came.
        sent: how many parts were taken from it.
        stopped: whether it was cancelled before its end.
    """

    parts: Sequence[bytes]
    content_type: bytes = b"application/json"
    status: int = 200
    seen: list[tuple[Any, bytes]] = field(default_factory=list)
    sent: int = 0
    stopped: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.seen.append((scope, (await receive())["body"]))
        headers = [(b"Content-Type", self.content_type)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        try:
            for part in self.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                self.sent += 1
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            self.stopped = True
            raise


def whole(*messages: Any, name: str = "message") -> Model:
    """A model that gives one JSON body, with a choice for each message."""
    choices = [
        {"index": index, **({"text": message} if name == "text" else {name: message})}
        for index, message in enumerate(messages)
    ]
    data = json.dumps({"object": "completion", "choices": choices}).encode()
    return Model([data[:20], data[20:]])


def streamed(*deltas: Any, end: bytes = b"data: [DONE]\n\n") -> Model:
    """A model that streams deltas of one choice; a str is content, a tuple has the index first."""
    events = [_event(*(d if isinstance(d, tuple) else (0, d))) for d in deltas]
    return Model([*events, end], b"text/event-stream; charset=utf-8")


def _event(index: int, delta: Any) -> bytes:
    content = {"content": delta} if isinstance(delta, str) else delta
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": index, "delta": content}]}).encode()
