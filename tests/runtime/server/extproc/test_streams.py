"""Answers of server-sent events on their way through Envoy: what passes, and when."""

import json
from typing import Any

import pytest

pytest.importorskip("grpc", reason="needs layerguard[extproc]")


from layerguard.runtime.server.config import Config, GuardConfig
from layerguard.runtime.server.extproc.messages import go_on
from layerguard.runtime.server.service import Service
from tests.runtime.server.extproc.exchanges import (
    CHAT,
    Make,
    body_of,
    exchanged,
    flag,
    headers_of,
    streamed,
    what_passed,
)


def _event(text: str, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _call(arguments: str, index: int = 0, **more: str) -> bytes:
    """An event with a part of a call of a tool."""
    call = {"index": index, "function": {"arguments": arguments, **more}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def test_a_stream_is_checked_part_by_part_and_ends_with_an_error(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events may be cut anywhere; what was flagged and all that follows does not pass."""
    asked = flag(monkeypatch, "boats")
    whole = _event("rain ") + _event("came ") + _event("boats ") + _event("lay")
    cut = len(_event("rain ")) + 9
    parts = [whole[:cut], whole[cut : cut + 60], whole[cut + 60 :], b"data: [DONE]\n\n"]
    found = exchanged(
        make_service(),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="200", content_type="text/event-stream"),
        *(body_of("response_body", part, last=False) for part in parts),
    )
    assert found[1].mode_override.response_body_mode == 1
    removed = found[1].response_headers.response.header_mutation.remove_headers
    assert list(removed) == ["content-length"]
    passed = what_passed(found[2:], parts)
    assert passed[0] == _event("rain ")  # not the beginning of an event that nobody has read
    assert b"".join(passed[:2]) == _event("rain ") + _event("came ")
    assert json.loads(passed[2].strip().removeprefix(b"data: "))["error"]["code"] == "blocked"
    assert passed[3] == b""
    request, text = asked[-1]
    assert text == "rain came boats lay"
    assert request.messages == tuple(CHAT["messages"])


def test_calls_of_tools_pass_once_the_answer_is_complete_and_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before them passes at once; their arguments are put together."""
    asked = flag(monkeypatch, "boats")
    parts = [_event("rain"), _call("ri", name="look"), _call("ver"), b"data: [DONE]\n\n"]
    assert streamed(make_service(), *parts) == [parts[0], b"", b"", b"".join(parts[1:])]
    call = {"index": 0, "function": {"arguments": "river", "name": "look"}}
    turn = {"role": "assistant", "content": "rain", "tool_calls": [call]}
    assert asked[-1].messages == (*CHAT["messages"], turn)


def test_a_flagged_call_of_a_tool_does_not_pass(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does any part of it."""
    flag(monkeypatch, "boats")
    parts = [_call("bo", name="look"), _call("ats"), b"data: [DONE]\n\n"]
    first, second, last = streamed(make_service(), *parts)
    assert first == second == b""
    assert json.loads(last.strip().removeprefix(b"data: "))["error"]["code"] == "blocked"


def test_an_operator_who_watches_holds_no_call_back(strict: Any) -> None:
    """In shadow mode every part passes as it comes."""
    config = Config({"main": str(strict)}, guard=GuardConfig(mode="shadow"))
    parts = [_call("bo", name="look"), _call("ats"), b"data: [DONE]\n\n"]
    assert streamed(Service(config), *parts) == parts


@pytest.mark.parametrize("name", ["reasoning_content", "refusal", "content"])
def test_every_text_of_an_event_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A client may show any of them."""
    flag(monkeypatch, "boats")
    event = {"choices": [{"index": 0, "delta": {name: "small boats"}}]}
    (found,) = streamed(make_service(), b"data: " + json.dumps(event).encode() + b"\n\n")
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
    asked = flag(monkeypatch, "boats")
    whole = exchanged(
        make_service(),
        body_of("request_body", call),
        headers_of("response_headers", __status="200", content_type="application/json"),
        body_of("response_body", _output(text)),
    )[-1]
    assert (whole.immediate_response.status.code == 403) == blocked
    assert [one.answer for one in asked][-1] == text
    assert asked[0].prompt in ("be brief\nthe garden", "the garden")
    parts = _response_events(text)
    first, last = streamed(make_service(), *parts, call=call)
    assert first == b""
    assert (b'"blocked"' in last) == blocked
    assert blocked or last == b"".join(parts)


def test_an_answer_of_events_that_breaks_off_does_not_pass(make_service: Make) -> None:
    """What it would have held is not known."""
    kind = headers_of("response_headers", __status="200", content_type="text/event-stream")
    first = body_of("response_body", _response_events("rain")[0])
    found = exchanged(make_service(), body_of("request_body", _RESPONSES), kind, first)
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
    kind = headers_of("response_headers", __status="200", content_type="text/event-stream")
    messages = body_of("request_body", CHAT), kind, body_of("response_body", event)
    assert exchanged(service, *messages)[-1].immediate_response.status.code == 400


def test_a_last_event_without_its_end_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may read it."""
    flag(monkeypatch, "boats")
    found = exchanged(
        make_service(),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="200", content_type="text/event-stream"),
        body_of("response_body", _event("boats").rstrip()),
    )
    assert b"error" in found[-1].response_body.response.body_mutation.body


def _as_stream(service: Service, *parts: bytes, call: Any = CHAT, **headers: str) -> list[Any]:
    kind = headers_of("response_headers", __status="200", **headers)
    *_, end = range(len(parts))
    bodies = [body_of("response_body", one, last=i == end) for i, one in enumerate(parts)]
    return exchanged(service, body_of("request_body", call), kind, *bodies)[2:]


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
    flag(monkeypatch, "boats")
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


@pytest.mark.parametrize(
    "body", [b'{"prompt": "b", "prompt": "a"}', b'{"prompt": "a", "Prompt": "b"}']
)
def test_a_body_that_readers_take_differently_is_refused(make_service: Make, body: bytes) -> None:
    """The model server may read the other key."""
    (found,) = exchanged(make_service(), body_of("request_body", body))
    assert found.immediate_response.status.code == 400
