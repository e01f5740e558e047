"""The middleware over applications that answer at once: what passes, what does not, and how."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from layerguard.integrations.asgi import GuardMiddleware
from layerguard.integrations.gate import FAILED, REFUSAL
from layerguard.runtime import Guard
from tests.integrations.bundles import Texts
from tests.integrations.client import Answer, Model, ask, whole

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def _chat(*texts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts], **more}


def _assistant(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def _answer(guard: Guard, model: Model, body: Any, *arguments: Any, **more: Any) -> Answer:
    return asyncio.run(ask(GuardMiddleware(model, guard), body, *arguments, **more))


def test_passes_a_harmless_chat(guard: Guard, said: Texts) -> None:
    """Bytes and headers of the answer are the application's; so are those of the request."""
    model = whole(_assistant(said.answer))
    body = json.dumps(_chat(said.harmless)).encode()
    answer = _answer(guard, model, body, headers=[(b"x-id", b"1"), (b"accept-encoding", b"gzip")])
    assert answer == Answer(200, {b"Content-Type": b"application/json"}, [answer.body], True)
    assert answer.body == b"".join(model.parts)
    ((scope, seen),) = model.seen
    assert seen == body
    assert scope["headers"] == [(b"x-id", b"1")]
    assert scope["extensions"] == {}


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/", "/v1/completions"]
)
def test_blocks_a_flagged_request(guard: Guard, said: Texts, path: str) -> None:
    """The application does not see it."""
    model = whole(_assistant(said.answer))
    chat = "chat" in path
    answer = _answer(guard, model, _chat(said.flagged) if chat else {"prompt": said.flagged}, path)
    assert (answer.status, answer.code) == (400, "content_filter")
    assert answer.json["error"]["message"] == REFUSAL
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    assert model.seen == []


@pytest.mark.parametrize(
    "body",
    [
        lambda bad: _chat("the garden", bad),
        lambda bad: _chat([{"type": "text", "text": bad}]),
        lambda bad: {"prompt": ["the garden", bad]},
        lambda bad: {"prompt": "the garden", "suffix": bad},
    ],
    ids=["a later turn", "a part", "a later prompt", "the suffix"],
)
def test_blocks_a_flagged_text_wherever_it_is(
    guard: Guard, said: Texts, body: Callable[[str], Any]
) -> None:
    """In each place that the model reads."""
    model = whole(_assistant(said.answer))
    answer = _answer(guard, model, body(said.flagged))
    assert (answer.status, answer.code) == (400, "content_filter")
    assert model.seen == []


@pytest.mark.parametrize(
    "message",
    [
        _assistant,
        lambda bad: _assistant(None, reasoning_content=bad),
        lambda bad: _assistant(None, refusal=bad),
        lambda bad: _assistant(bad, tool_calls=[CALL]),
    ],
    ids=["content", "reasoning", "refusal", "beside a tool call"],
)
def test_blocks_a_flagged_answer(guard: Guard, said: Texts, message: Callable[[str], Any]) -> None:
    """Nothing of it reaches the client, whichever member holds it."""
    answer = _answer(guard, whole(message(said.flagged_answer)), _chat(said.harmless))
    assert (answer.status, answer.code) == (400, "content_filter")
    assert answer.complete


def test_blocks_the_second_choice(guard: Guard, said: Texts) -> None:
    """Of a chat with two answers."""
    model = whole(_assistant(said.answer), _assistant(said.flagged_answer))
    assert _answer(guard, model, _chat(said.harmless, n=2)).code == "content_filter"


def test_passes_text_completions(guard: Guard, said: Texts) -> None:
    """Of two prompts with two choices each."""
    model = whole(*[said.answer] * 4, name="text")
    body = {"prompt": [said.harmless] * 2, "n": 2}
    assert _answer(guard, model, body, "/v1/completions").status == 200


def test_blocks_a_flagged_text_completion(guard: Guard, said: Texts) -> None:
    """The last choice of the last prompt."""
    model = whole(*[said.answer] * 3, said.flagged_answer, name="text")
    body = {"prompt": [said.harmless] * 2, "n": 2}
    assert _answer(guard, model, body, "/v1/completions").code == "content_filter"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{", "not JSON"),
        (b"[1]", "expected an object"),
        (b"\xff", "not JSON"),
        (b'{"prompt": "a", "prompt": "b"}', "a key is repeated"),
        (b"[" * 100_000, "not JSON"),
        ({}, "expected a text"),
        ({"prompt": [1, 2]}, "token ids are not read"),
        ({"prompt": []}, "expected a text"),
        (_chat("the garden", prompt="a prompt"), "expected one of them"),
        ({"prompt": "a", "n": "many"}, "expected a whole number"),
        ({"messages": []}, "at least one turn"),
        ({"messages": "text"}, "expected a list of turns"),
    ],
    ids=str,
)
def test_fails_closed_on_a_request_that_is_wrong(
    guard: Guard, said: Texts, body: Any, what: str
) -> None:
    """The error says why; the application does not see the request."""
    model = whole(_assistant(said.answer))
    answer = _answer(guard, model, body)
    assert (answer.status, answer.code) == (400, "unreadable")
    assert what in answer.json["error"]["message"]
    assert model.seen == []


def test_an_image_is_blocked(guard: Guard, said: Texts) -> None:
    """No detector reads it; the application does not see the request."""
    model = whole(_assistant(said.answer))
    answer = _answer(guard, model, _chat([IMAGE]))
    assert (answer.status, answer.code) == (400, "content_filter")
    assert model.seen == []


def test_fails_closed_where_the_guard_raises(
    guard: Guard, said: Texts, break_guard: Callable[[], None]
) -> None:
    """On the request; the client does not see the error's text."""
    break_guard()
    model = whole(_assistant(said.answer))
    answer = _answer(guard, model, _chat(said.harmless))
    assert (answer.status, answer.code) == (503, "guard_failed")
    assert answer.json["error"]["message"] == FAILED
    assert model.seen == []


def test_fails_closed_where_the_guard_raises_later(
    guard: Guard, said: Texts, break_guard: Callable[[], None]
) -> None:
    """On the answer."""
    model = whole(_assistant(said.answer))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        break_guard()
        await model(scope, receive, send)

    answer = asyncio.run(ask(GuardMiddleware(app, guard), _chat(said.harmless)))
    assert (answer.status, answer.code) == (503, "guard_failed")


@pytest.mark.parametrize(
    "model",
    [
        Model([b"text"], b"text/plain"),
        Model([b"\x1f\x8b"]),
        Model([b"{}"]),
        whole(),
        whole({"audio": {"data": "aGVsbG8="}}),
        whole({"content": [{"type": "text", "text": "a part"}]}),
        Model([b'{"choices": [{"index": 1, "message": {"content": "a"}}]}']),
    ],
    ids=["text", "gzip", "no choices", "none of them", "sound", "parts", "no such choice"],
)
def test_fails_closed_on_an_answer_that_cannot_be_read(
    guard: Guard, said: Texts, model: Model
) -> None:
    """It is no fault of the client."""
    answer = _answer(guard, model, _chat(said.harmless))
    assert (answer.status, answer.code) == (503, "guard_failed")


def test_passes_errors_of_the_application(guard: Guard, said: Texts) -> None:
    """Status and body are the application's."""
    answer = _answer(guard, Model([b"no"], b"text/plain", status=429), _chat(said.harmless))
    assert (answer.status, answer.body, answer.complete) == (429, b"no", True)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings")]
)
def test_passes_other_requests_unread(guard: Guard, said: Texts, method: str, path: str) -> None:
    """Another method, or another path."""
    model = Model([b"text"], b"text/plain")
    answer = _answer(guard, model, _chat(said.flagged), path, method=method)
    assert (answer.status, answer.body) == (200, b"text")


def test_passes_a_body_of_the_greatest_length_and_no_longer_one(guard: Guard, said: Texts) -> None:
    """One byte more is refused in OpenAI's form."""
    body = json.dumps(_chat(said.harmless)).encode()
    model = whole(_assistant(said.answer))
    app = GuardMiddleware(model, guard, max_body_bytes=len(body))
    assert asyncio.run(ask(app, body)).status == 200
    answer = asyncio.run(ask(app, body + b" "))
    assert (answer.status, answer.code) == (413, "too_long")
    assert len(model.seen) == 1


def test_a_client_that_leaves_ends_the_request(guard: Guard) -> None:
    """Before its body is complete; nothing is sent."""
    model = whole(_assistant("a"))

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(GuardMiddleware(model, guard)(scope, receive, send))
    assert model.seen == []


def test_errors_of_the_application_go_on(guard: Guard, said: Texts) -> None:
    """To the server, as without the middleware."""

    async def app(*_: Any) -> None:
        raise LookupError("of the application")

    with pytest.raises(LookupError):
        asyncio.run(ask(GuardMiddleware(app, guard), _chat(said.harmless)))


def test_passes_each_answer_to_its_own_request(guard: Guard, said: Texts) -> None:
    """Forty at once: an application that echoes gets each text back, and flagged ones stop."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        text = json.loads((await receive())["body"])["messages"][0]["content"]
        await asyncio.sleep(0)
        await whole(_assistant(text))(scope, _once(), send)

    async def run() -> list[Answer]:
        app = GuardMiddleware(echo, guard)
        asked = [f"{said.harmless} {i}" if i % 4 else said.flagged for i in range(40)]
        return await asyncio.gather(*(ask(app, _chat(text)) for text in asked))

    for i, answer in enumerate(asyncio.run(run())):
        if i % 4:
            text = answer.json["choices"][0]["message"]["content"]
            assert text == f"{said.harmless} {i}"
        else:
            assert answer.code == "content_filter"


def _once() -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    return receive
