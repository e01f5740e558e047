"""Envoy's external processing: what passes, what is answered, and what a stream carries."""

import asyncio
import json
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs layerguard[extproc]")

import grpc

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.config import Config, GuardConfig
from layerguard.runtime.server.extproc.messages import (
    SERVICE,
    ProcessingRequest,
    ProcessingResponse,
    go_on,
)
from layerguard.runtime.server.extproc.processor import Exchange, listen
from layerguard.runtime.server.service import Service

Make = Callable[..., Service]
_CHAT = {"model": "chat", "messages": [{"role": "user", "content": "the garden was quiet"}]}


@pytest.fixture
def strict_service(strict: Any) -> Service:
    """A service that flags everything."""
    return Service(Config({"main": str(strict)}, guard=GuardConfig(threads=1)))


def _headers(phase: str, **values: str) -> Any:
    message = ProcessingRequest()
    getattr(message, phase).SetInParent()
    for name, value in values.items():
        one = getattr(message, phase).headers.headers.add()
        one.key, one.raw_value = name.replace("__", ":").replace("_", "-"), value.encode()
    return message


def _body(phase: str, body: Any, *, last: bool = True) -> Any:
    message = ProcessingRequest()
    part = getattr(message, phase)
    part.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    part.end_of_stream = last
    return message


def _answer(text: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def _event(text: str, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _call(arguments: str, index: int = 0, **more: str) -> bytes:
    """An event with a part of a call of a tool."""
    call = {"index": index, "function": {"arguments": arguments, **more}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _passed(found: list[Any], parts: list[bytes]) -> list[bytes]:
    """What a client gets for each part of an answer."""
    passed = []
    for one, part in zip(found, parts, strict=True):
        mutation = one.response_body.response.body_mutation
        replaced = mutation.body or mutation.clear_body
        passed.append(bytes(mutation.body) if replaced else part)
    return passed


def _streamed(service: Service, *parts: bytes, call: Any = _CHAT) -> list[bytes]:
    """What a client gets for each part of an answer of events; the last one ends it."""
    messages = [_body("response_body", one, last=one is parts[-1]) for one in parts]
    kind = _headers("response_headers", __status="200", content_type="text/event-stream")
    found = _exchanged(service, _body("request_body", call), kind, *messages)
    return _passed(found[2:], list(parts))


def _exchanged(service: Service, *messages: Any, load: bool = True) -> list[Any]:
    """What Envoy gets for some messages, as it came over the wire."""

    async def whole() -> list[Any]:
        if load:
            await service.reload()
        exchange = Exchange(service)
        try:
            found = [await exchange.respond(one) for one in messages]
        finally:
            exchange.close()
            await service.drain()
        return [ProcessingResponse.FromString(one.SerializeToString()) for one in found]

    return asyncio.run(whole())


def _kind(response: Any) -> str:
    (name,) = [field.name for field, _ in response.ListFields() if field.name != "mode_override"]
    return str(name)


def test_a_request_and_its_answer_pass_unchanged(make_service: Make) -> None:
    """Each message is answered with its own kind, and no body is replaced."""
    phases = ["request_headers", "request_body", "response_headers", "response_body"]
    found = _exchanged(
        make_service(),
        _headers("request_headers", __method="POST"),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="200", content_type="application/json"),
        _body("response_body", _answer("rain came")),
    )
    assert [_kind(response) for response in found] == phases
    for phase, response in zip(phases, found, strict=True):
        assert not getattr(response, phase).response.HasField("body_mutation")


def test_a_flagged_request_is_answered_with_403(strict_service: Service) -> None:
    """In OpenAI's error form, with the reason."""
    (found,) = _exchanged(strict_service, _body("request_body", _CHAT))
    immediate = found.immediate_response
    assert immediate.status.code == 403
    assert json.loads(immediate.body)["error"]["code"] == "blocked"
    (header,) = immediate.headers.set_headers
    assert (header.header.key, header.header.raw_value) == ("content-type", b"application/json")


def _flags(monkeypatch: pytest.MonkeyPatch, word: str) -> list[Any]:
    """Let texts with a word be blocked; the requests that were asked about, in order."""
    asked: list[Any] = []
    check, push = Service.check, Service.push

    async def checked(self: Service, requests: Any, **more: Any) -> Any:
        asked.extend(requests)
        return [
            _forced(a, word in r.content())
            for a, r in zip(await check(self, requests, **more), requests, strict=True)
        ]

    async def pushed(self: Service, key: str, text: str, request: Any, **more: Any) -> Any:
        asked.append((request, text))
        return _forced(await push(self, key, text, request, **more), word in text)

    monkeypatch.setattr(Service, "check", checked)
    monkeypatch.setattr(Service, "push", pushed)
    return asked


def _forced(answer: Any, blocked: bool) -> Any:
    return SimpleNamespace(blocked=blocked, reason=answer.reason)


def test_a_flagged_answer_is_read_with_its_request(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And answered with 403; all choices are read."""
    asked = _flags(monkeypatch, "boats")
    two = {"choices": [*_answer("rain")["choices"], *_answer("small boats")["choices"]]}
    found = _exchanged(
        make_service(),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="200"),
        _body("response_body", two),
    )
    assert found[-1].immediate_response.status.code == 403
    _, rain, boats = asked
    assert rain.messages == (*_CHAT["messages"], {"role": "assistant", "content": "rain"})
    assert boats.answer == "small boats"


def test_calls_of_tools_are_read_with_their_request(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harmful argument would reach the tool unread."""
    asked: list[Any] = []
    check = Service.check

    async def watched(self: Service, requests: Any, **named: Any) -> Any:
        asked.extend(requests)
        return await check(self, requests, **named)

    monkeypatch.setattr(Service, "check", watched)
    called = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "boats"}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    _exchanged(
        make_service(),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="200", content_type="application/json"),
        _body("response_body", {"choices": [{"index": 0, "message": message}]}),
    )
    turn = {"role": "assistant", "tool_calls": [called]}
    assert asked[-1].messages == (*_CHAT["messages"], turn)
    assert "boats" in asked[-1].content()


def test_a_stream_is_checked_part_by_part_and_ends_with_an_error(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events may be cut anywhere; what was flagged and all that follows does not pass."""
    asked = _flags(monkeypatch, "boats")
    whole = _event("rain ") + _event("came ") + _event("boats ") + _event("lay")
    cut = len(_event("rain ")) + 9
    parts = [whole[:cut], whole[cut : cut + 60], whole[cut + 60 :], b"data: [DONE]\n\n"]
    found = _exchanged(
        make_service(),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="200", content_type="text/event-stream"),
        *(_body("response_body", part, last=False) for part in parts),
    )
    assert found[1].mode_override.response_body_mode == 1
    removed = found[1].response_headers.response.header_mutation.remove_headers
    assert list(removed) == ["content-length"]
    passed = _passed(found[2:], parts)
    assert passed[0] == _event("rain ")  # not the beginning of an event that nobody has read
    assert b"".join(passed[:2]) == _event("rain ") + _event("came ")
    assert json.loads(passed[2].strip().removeprefix(b"data: "))["error"]["code"] == "blocked"
    assert passed[3] == b""
    request, text = asked[-1]
    assert text == "rain came boats lay"
    assert request.messages == tuple(_CHAT["messages"])


def test_calls_of_tools_pass_once_the_answer_is_complete_and_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before them passes at once; their arguments are put together."""
    asked = _flags(monkeypatch, "boats")
    parts = [_event("rain"), _call("ri", name="look"), _call("ver"), b"data: [DONE]\n\n"]
    assert _streamed(make_service(), *parts) == [parts[0], b"", b"", b"".join(parts[1:])]
    call = {"index": 0, "function": {"arguments": "river", "name": "look"}}
    turn = {"role": "assistant", "content": "rain", "tool_calls": [call]}
    assert asked[-1].messages == (*_CHAT["messages"], turn)


def test_a_flagged_call_of_a_tool_does_not_pass(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does any part of it."""
    _flags(monkeypatch, "boats")
    parts = [_call("bo", name="look"), _call("ats"), b"data: [DONE]\n\n"]
    first, second, last = _streamed(make_service(), *parts)
    assert first == second == b""
    assert json.loads(last.strip().removeprefix(b"data: "))["error"]["code"] == "blocked"


def test_an_operator_who_watches_holds_no_call_back(strict: Any) -> None:
    """In shadow mode every part passes as it comes."""
    config = Config({"main": str(strict)}, guard=GuardConfig(mode="shadow"))
    parts = [_call("bo", name="look"), _call("ats"), b"data: [DONE]\n\n"]
    assert _streamed(Service(config), *parts) == parts


@pytest.mark.parametrize("name", ["reasoning_content", "refusal", "content"])
def test_every_text_of_an_event_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A client may show any of them."""
    _flags(monkeypatch, "boats")
    event = {"choices": [{"index": 0, "delta": {name: "small boats"}}]}
    (found,) = _streamed(make_service(), b"data: " + json.dumps(event).encode() + b"\n\n")
    assert b'"blocked"' in found


_RESPONSES = {"input": [{"role": "user", "content": "the garden"}], "instructions": "be brief"}


def _output(text: str) -> dict[str, Any]:
    """A whole answer of the Responses API."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"output": [{"type": "message", "id": "1", "role": "assistant", "content": [part]}]}


def _response_events(text: str) -> list[bytes]:
    """The same as events."""
    events = [
        {"type": "response.output_text.delta", "item_id": "1", "delta": text},
        {"type": "response.completed", "response": _output(text)},
    ]
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]


@pytest.mark.parametrize("call", [_RESPONSES, {"input": "the garden"}])
@pytest.mark.parametrize(("text", "blocked"), [("small boats", True), ("rain", False)])
def test_answers_of_the_responses_api_are_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, call: Any, text: str, blocked: bool
) -> None:
    """Whole ones, and those of events, which pass once they are complete."""
    asked = _flags(monkeypatch, "boats")
    whole = _exchanged(
        make_service(),
        _body("request_body", call),
        _headers("response_headers", __status="200", content_type="application/json"),
        _body("response_body", _output(text)),
    )[-1]
    assert (whole.immediate_response.status.code == 403) == blocked
    assert [one.answer for one in asked][-1] == text
    assert asked[0].prompt in ("be brief\nthe garden", "the garden")
    parts = _response_events(text)
    first, last = _streamed(make_service(), *parts, call=call)
    assert first == b""
    assert (b'"blocked"' in last) == blocked
    assert blocked or last == b"".join(parts)


def test_an_answer_of_events_that_breaks_off_does_not_pass(make_service: Make) -> None:
    """What it would have held is not known."""
    kind = _headers("response_headers", __status="200", content_type="text/event-stream")
    first = _body("response_body", _response_events("rain")[0])
    found = _exchanged(make_service(), _body("request_body", _RESPONSES), kind, first)
    assert found[-1].immediate_response.status.code == 400


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": {"look": "boats"}},
        {"tool_calls": ["look"]},
        {"tool_calls": [{"index": "0"}]},
        {"content": ["rain"]},
        {"audio": {"id": "1"}},
        "rain",
    ],
)
def test_an_event_that_cannot_be_read_does_not_pass(make_service: Make, delta: Any) -> None:
    """400 in OpenAI's error form."""
    event = b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
    _refused(make_service(), event)


def test_events_of_another_interface_do_not_pass(make_service: Make) -> None:
    """Their text is in a place that nobody reads."""
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "boats"}}
    _refused(make_service(), b"data: " + json.dumps(event).encode() + b"\n\n")


def _refused(service: Service, event: bytes) -> None:
    kind = _headers("response_headers", __status="200", content_type="text/event-stream")
    messages = _body("request_body", _CHAT), kind, _body("response_body", event)
    assert _exchanged(service, *messages)[-1].immediate_response.status.code == 400


@pytest.mark.parametrize(
    ("call", "texts"),
    [
        ({"prompt": "rain"}, ["rain"]),
        ({"prompt": ["rain", "hills"]}, ["rain", "hills"]),
        ({"input": ["rain", "hills"]}, ["rain", "hills"]),
        ({"messages": [{"role": "user", "content": "a"}], "prompt": "rain"}, ["rain", "a"]),
        ({"messages": None, "prompt": "rain"}, ["rain"]),
    ],
)
def test_prompts_and_embeddings_are_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, call: Any, texts: list[str]
) -> None:
    """Each text of them."""
    asked = _flags(monkeypatch, "boats")
    _exchanged(make_service(), _body("request_body", call))
    assert [one.prompt for one in asked] == texts


def test_answers_that_hold_no_text_of_a_model_pass(make_service: Make) -> None:
    """Those of embeddings, and errors of the upstream."""
    service = make_service()
    embedding = _exchanged(
        service, _body("request_body", {"input": "rain"}), _body("response_body", {"data": []})
    )
    failed = _exchanged(
        make_service(),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="500"),
        _body("response_body", {"error": {}}),
    )
    assert [_kind(found[-1]) for found in (embedding, failed)] == ["response_body"] * 2


@pytest.mark.parametrize(
    "messages",
    [
        [_body("request_body", b"{")],
        [_body("request_body", [])],
        [_body("request_body", {"model": "chat"})],
        [_body("request_body", {"prompt": {"text": "rain"}})],
        [_body("request_body", {"input": "rain", "background": True})],
        [_body("request_body", {"input": "rain", "Background": True})],
        [_body("request_body", _CHAT), _body("response_body", b"\x1f\x8b")],
        [_body("request_body", _CHAT), _body("response_body", {"data": []})],
    ],
)
def test_what_cannot_be_read_does_not_pass(make_service: Make, messages: list[Any]) -> None:
    """400 in OpenAI's error form; unless the operator only watches."""
    found = _exchanged(make_service(), *messages)
    assert found[-1].immediate_response.status.code == 400
    assert "error" in json.loads(found[-1].immediate_response.body)


def test_a_message_of_no_known_phase_ends_the_stream(make_service: Make) -> None:
    """Envoy then answers its client with 500."""
    with pytest.raises(InputError, match="expected one of its phases"):
        _exchanged(make_service(), ProcessingRequest())


def test_a_guard_that_cannot_answer_answers_503(make_service: Make) -> None:
    """Before the bundles are loaded."""
    (found,) = _exchanged(make_service(), _body("request_body", _CHAT), load=False)
    assert found.immediate_response.status.code == 503


def test_a_guard_that_fails_says_so_in_the_log_only(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 for the client, without the reason."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("inner facts")

    monkeypatch.setattr(Service, "check", fail)
    (found,) = _exchanged(make_service(), _body("request_body", _CHAT))
    assert found.immediate_response.status.code == 500
    assert b"inner facts" not in found.immediate_response.body
    assert "inner facts" in caplog.text


def test_a_last_event_without_its_end_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may read it."""
    _flags(monkeypatch, "boats")
    found = _exchanged(
        make_service(),
        _body("request_body", _CHAT),
        _headers("response_headers", __status="200", content_type="text/event-stream"),
        _body("response_body", _event("boats").rstrip()),
    )
    assert b"error" in found[-1].response_body.response.body_mutation.body


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_an_operator_who_watches_changes_nothing(strict: Any, mode: str) -> None:
    """Neither flagged texts nor those that cannot be read are stopped."""
    for body in (_CHAT, b"{"):
        config = Config({"main": str(strict)}, guard=GuardConfig(route_modes={"extproc": mode}))
        (found,) = _exchanged(Service(config), _body("request_body", body))
        assert _kind(found) == "request_body"


def _as_stream(service: Service, *parts: bytes, call: Any = _CHAT, **headers: str) -> list[Any]:
    kind = _headers("response_headers", __status="200", **headers)
    *_, end = range(len(parts))
    bodies = [_body("response_body", one, last=i == end) for i, one in enumerate(parts)]
    return _exchanged(service, _body("request_body", call), kind, *bodies)[2:]


@pytest.mark.parametrize(
    "event",
    [
        b"\xef\xbb\xbf" + _event("boats"),
        _event("boats").replace(b"\n", b"\r"),
        b": comment\r" + _event("boats"),
        b"event: message\r" + _event("boats"),
        _event("boats").replace(b'"choices"', b'\ndata: "choices"'),
        b"data: [DONE]\n\n" + _event("boats") + b"data: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_every_spelling_of_an_event_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, event: bytes, kind: str
) -> None:
    """A byte order mark, any line end, data over several lines, any case of the type."""
    _flags(monkeypatch, "boats")
    (found,) = _as_stream(make_service(), event, content_type=kind)
    assert b'"blocked"' in found.response_body.response.body_mutation.body


def test_an_answer_that_is_held_back_has_a_limit(make_service: Make) -> None:
    """In bytes; what has passed does not count."""
    service = make_service()
    most = 4 * service.config.http.body_bytes
    ping = b": " + b"." * (most // 2) + b"\n\n"
    passed = [go_on("response_body")] * 3
    assert _as_stream(service, *[ping] * 3, content_type="text/event-stream") == passed
    event = b'data: {"type": "response.created"}\n\n'
    *_, found = _as_stream(make_service(), event, ping, ping, content_type="text/event-stream")
    assert found.immediate_response.status.code == 413


def test_a_request_asks_for_an_answer_that_is_not_compressed(make_service: Make) -> None:
    """The guard could not read it."""
    (found,) = _exchanged(make_service(), _headers("request_headers", accept_encoding="gzip"))
    removed = found.request_headers.response.header_mutation.remove_headers
    assert list(removed) == ["accept-encoding"]


@pytest.mark.parametrize(
    "answer",
    [
        {"output": [{"type": "message", "role": "assistant", "content": "boats"}], "choices": []},
        {"choices": [{"message": {"content": "rain"}, "text": "boats"}]},
    ],
)
def test_an_answer_of_two_forms_is_read_whole(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """A client may show either."""
    _flags(monkeypatch, "boats")
    found = _exchanged(make_service(), _body("request_body", _CHAT), _body("response_body", answer))
    assert found[-1].immediate_response.status.code == 403


@pytest.mark.parametrize("call", [{**_CHAT, "input": "a"}, {"prompt": "b", "input": "a"}])
def test_only_the_answer_to_an_embedding_may_hold_no_text(make_service: Make, call: Any) -> None:
    """Another one is not read, so it does not pass."""
    answer = {"content": [{"text": "boats"}]}
    found = _exchanged(make_service(), _body("request_body", call), _body("response_body", answer))
    assert found[-1].immediate_response.status.code == 400


@pytest.mark.parametrize(
    "call",
    [
        {**_CHAT, "functions": [{"name": "look", "description": "boats"}]},
        {"prompt": "a", "suffix": "boats"},
        {**_CHAT, "response_format": {"json_schema": {"description": "boats"}}},
    ],
)
def test_every_text_of_a_call_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    """Wherever OpenAI's interface has one."""
    _flags(monkeypatch, "boats")
    (found,) = _exchanged(make_service(), _body("request_body", call))
    assert found.immediate_response.status.code == 403


@pytest.mark.parametrize(
    "body", [b'{"prompt": "b", "prompt": "a"}', b'{"prompt": "a", "Prompt": "b"}']
)
def test_a_body_that_readers_take_differently_is_refused(make_service: Make, body: bytes) -> None:
    """The model server may read the other key."""
    (found,) = _exchanged(make_service(), _body("request_body", body))
    assert found.immediate_response.status.code == 400


def test_bodies_have_a_limit(make_service: Make) -> None:
    """413, of a request earlier than of an answer."""
    service = make_service()
    most = service.config.http.body_bytes
    long = json.dumps(_CHAT).encode() + b" " * most
    asked = _exchanged(service, _body("request_body", long))
    whole = json.dumps(_answer("rain")).encode() + b" " * most
    passed = _exchanged(make_service(), _body("request_body", _CHAT), _body("response_body", whole))
    whole += b" " * 3 * most
    told = _exchanged(make_service(), _body("request_body", _CHAT), _body("response_body", whole))
    assert asked[-1].immediate_response.status.code == 413
    assert _kind(passed[-1]) == "response_body"
    assert told[-1].immediate_response.status.code == 413


def test_a_body_beyond_the_limit_gets_its_status_over_grpc(make_service: Make) -> None:
    """The call does not end, which Envoy could take for leave to pass the request on."""
    service = make_service()
    long = _body("request_body", b" " * (service.config.http.body_bytes + (1 << 20)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def asked() -> Any:
        server = await listen(service, "127.0.0.1", port, shares=False)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                process = channel.stream_stream(
                    f"/{SERVICE}/Process",
                    ProcessingRequest.SerializeToString,
                    ProcessingResponse.FromString,
                )
                return [found async for found in process(iter([long]), timeout=30)]
        finally:
            await server.stop(None)

    (found,) = asyncio.run(asked())
    assert found.immediate_response.status.code == 413
