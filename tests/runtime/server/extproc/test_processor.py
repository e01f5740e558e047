"""Envoy's external processing: which requests and whole answers pass, and what is answered."""

import asyncio
import json
import socket
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
)
from layerguard.runtime.server.extproc.processor import listen
from layerguard.runtime.server.service import Service
from tests.runtime.server.extproc.exchanges import (
    CHAT,
    Make,
    body_of,
    exchanged,
    flag,
    headers_of,
    kind_of,
)


@pytest.fixture
def strict_service(strict: Any) -> Service:
    """A service that flags everything."""
    return Service(Config({"main": str(strict)}, guard=GuardConfig(threads=1)))


def _answer(text: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def test_a_request_and_its_answer_pass_unchanged(make_service: Make) -> None:
    """Each message is answered with its own kind, and no body is replaced."""
    phases = ["request_headers", "request_body", "response_headers", "response_body"]
    found = exchanged(
        make_service(),
        headers_of("request_headers", __method="POST"),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="200", content_type="application/json"),
        body_of("response_body", _answer("rain came")),
    )
    assert [kind_of(response) for response in found] == phases
    for phase, response in zip(phases, found, strict=True):
        assert not getattr(response, phase).response.HasField("body_mutation")


def test_a_flagged_request_is_answered_with_403(strict_service: Service) -> None:
    """In OpenAI's error form, with the reason."""
    (found,) = exchanged(strict_service, body_of("request_body", CHAT))
    immediate = found.immediate_response
    assert immediate.status.code == 403
    assert json.loads(immediate.body)["error"]["code"] == "blocked"
    (header,) = immediate.headers.set_headers
    assert (header.header.key, header.header.raw_value) == ("content-type", b"application/json")


def test_a_flagged_answer_is_read_with_its_request(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And answered with 403; all choices are read."""
    asked = flag(monkeypatch, "boats")
    two = {"choices": [*_answer("rain")["choices"], *_answer("small boats")["choices"]]}
    found = exchanged(
        make_service(),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="200"),
        body_of("response_body", two),
    )
    assert found[-1].immediate_response.status.code == 403
    _, rain, boats = asked
    assert rain.messages == (*CHAT["messages"], {"role": "assistant", "content": "rain"})
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
    exchanged(
        make_service(),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="200", content_type="application/json"),
        body_of("response_body", {"choices": [{"index": 0, "message": message}]}),
    )
    turn = {"role": "assistant", "tool_calls": [called]}
    assert asked[-1].messages == (*CHAT["messages"], turn)
    assert "boats" in asked[-1].content()


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
    asked = flag(monkeypatch, "boats")
    exchanged(make_service(), body_of("request_body", call))
    assert [one.prompt for one in asked] == texts


def test_answers_that_hold_no_text_of_a_model_pass(make_service: Make) -> None:
    """Those of embeddings, and errors of the upstream."""
    service = make_service()
    embedding = exchanged(
        service, body_of("request_body", {"input": "rain"}), body_of("response_body", {"data": []})
    )
    failed = exchanged(
        make_service(),
        body_of("request_body", CHAT),
        headers_of("response_headers", __status="500"),
        body_of("response_body", {"error": {}}),
    )
    assert [kind_of(found[-1]) for found in (embedding, failed)] == ["response_body"] * 2


@pytest.mark.parametrize(
    "messages",
    [
        [body_of("request_body", b"{")],
        [body_of("request_body", [])],
        [body_of("request_body", {"model": "chat"})],
        [body_of("request_body", {"prompt": {"text": "rain"}})],
        [body_of("request_body", {"input": "rain", "background": True})],
        [body_of("request_body", {"input": "rain", "Background": True})],
        [body_of("request_body", CHAT), body_of("response_body", b"\x1f\x8b")],
        [body_of("request_body", CHAT), body_of("response_body", {"data": []})],
    ],
)
def test_what_cannot_be_read_does_not_pass(make_service: Make, messages: list[Any]) -> None:
    """400 in OpenAI's error form; unless the operator only watches."""
    found = exchanged(make_service(), *messages)
    assert found[-1].immediate_response.status.code == 400
    assert "error" in json.loads(found[-1].immediate_response.body)


def test_a_message_of_no_known_phase_ends_the_stream(make_service: Make) -> None:
    """Envoy then answers its client with 500."""
    with pytest.raises(InputError, match="expected one of its phases"):
        exchanged(make_service(), ProcessingRequest())


def test_a_guard_that_cannot_answer_answers_503(make_service: Make) -> None:
    """Before the bundles are loaded."""
    (found,) = exchanged(make_service(), body_of("request_body", CHAT), load=False)
    assert found.immediate_response.status.code == 503


def test_a_guard_that_fails_says_so_in_the_log_only(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 for the client, without the reason."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("inner facts")

    monkeypatch.setattr(Service, "check", fail)
    (found,) = exchanged(make_service(), body_of("request_body", CHAT))
    assert found.immediate_response.status.code == 500
    assert b"inner facts" not in found.immediate_response.body
    assert "inner facts" in caplog.text


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_an_operator_who_watches_changes_nothing(strict: Any, mode: str) -> None:
    """Neither flagged texts nor those that cannot be read are stopped."""
    for body in (CHAT, b"{"):
        config = Config({"main": str(strict)}, guard=GuardConfig(route_modes={"extproc": mode}))
        (found,) = exchanged(Service(config), body_of("request_body", body))
        assert kind_of(found) == "request_body"


def test_a_request_asks_for_an_answer_that_is_not_compressed(make_service: Make) -> None:
    """The guard could not read it."""
    (found,) = exchanged(make_service(), headers_of("request_headers", accept_encoding="gzip"))
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
    flag(monkeypatch, "boats")
    found = exchanged(
        make_service(), body_of("request_body", CHAT), body_of("response_body", answer)
    )
    assert found[-1].immediate_response.status.code == 403


@pytest.mark.parametrize("call", [{**CHAT, "input": "a"}, {"prompt": "b", "input": "a"}])
def test_only_the_answer_to_an_embedding_may_hold_no_text(make_service: Make, call: Any) -> None:
    """Another one is not read, so it does not pass."""
    answer = {"content": [{"text": "boats"}]}
    found = exchanged(
        make_service(), body_of("request_body", call), body_of("response_body", answer)
    )
    assert found[-1].immediate_response.status.code == 400


@pytest.mark.parametrize(
    "call",
    [
        {**CHAT, "functions": [{"name": "look", "description": "boats"}]},
        {"prompt": "a", "suffix": "boats"},
        {**CHAT, "response_format": {"json_schema": {"description": "boats"}}},
    ],
)
def test_every_text_of_a_call_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    """Wherever OpenAI's interface has one."""
    flag(monkeypatch, "boats")
    (found,) = exchanged(make_service(), body_of("request_body", call))
    assert found.immediate_response.status.code == 403


def test_bodies_have_a_limit(make_service: Make) -> None:
    """413, of a request earlier than of an answer."""
    service = make_service()
    most = service.config.http.body_bytes
    long = json.dumps(CHAT).encode() + b" " * most
    asked = exchanged(service, body_of("request_body", long))
    whole = json.dumps(_answer("rain")).encode() + b" " * most
    passed = exchanged(
        make_service(), body_of("request_body", CHAT), body_of("response_body", whole)
    )
    whole += b" " * 3 * most
    told = exchanged(make_service(), body_of("request_body", CHAT), body_of("response_body", whole))
    assert asked[-1].immediate_response.status.code == 413
    assert kind_of(passed[-1]) == "response_body"
    assert told[-1].immediate_response.status.code == 413


def test_a_body_beyond_the_limit_gets_its_status_over_grpc(make_service: Make) -> None:
    """The call does not end, which Envoy could take for leave to pass the request on."""
    service = make_service()
    long = body_of("request_body", b" " * (service.config.http.body_bytes + (1 << 20)))
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
