"""``/v1/stream`` and ``/v1/generate``."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.server.config import Config, HttpConfig, StreamConfig
from layerguard.runtime.server.service import Service
from tests import tiny_decoder
from tests.runtime.server.conftest import Connected


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model writes answers and is read token by token."""
    return tiny_decoder.make_bundle(tmp_path_factory.mktemp("decoder") / "bundle")


def _posted(
    connected: Connected, service: Service, path: str, content: Any, accept: str = "*/*"
) -> httpx.Response:
    async def whole() -> httpx.Response:
        async with connected(service) as client:
            await service.reload()
            response = await client.post(path, content=content, headers={"accept": accept})
            assert len(service._answers) == 0
            return response

    return asyncio.run(whole())


def _lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def _objects(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_each_line_is_answered_with_the_verdict_so_far(connected: Connected, decoder: Path) -> None:
    """As ``Guard.check`` gives it for the prompt with the answer so far; nothing stays open."""
    chunks = ["the garden", " was quiet", " before rain"]
    body = _lines({"prompt": "the river"}, *({"chunk": chunk} for chunk in chunks))
    service = Service(Config({"main": str(decoder)}))
    found = _objects(_posted(connected, service, "/v1/stream", body))
    guard = Guard.load(decoder, threads=1)
    assert len(found) == 4
    for count, one in enumerate(found):
        expected = guard.check(prompt="the river", response="".join(chunks[:count]) or None)
        assert one["flagged"] == expected.flagged
        assert one["unread_tokens"] == 0
        for name, reading in expected.readings.items():
            close = pytest.approx(reading.score, abs=1e-5 * (1 + abs(reading.score)))
            assert one["readings"][name]["score"] == close


def test_events_go_in_and_out(connected: Connected, decoder: Path) -> None:
    """A body of server-sent events, cut anywhere, gives the same as one of lines."""
    text = b'event: x\ndata: {"prompt": "the river"}\n\n: comment\n\ndata: {"chunk": "was"}\n\n'

    async def cut() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    service = Service(Config({"main": str(decoder)}))
    response = _posted(connected, service, "/v1/stream", cut(), "text/event-stream")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert len(events) == 3
    assert all(
        json.loads(event.removeprefix("data: "))["blocked"] in (0, 1) for event in events[:2]
    )


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "expected an object with a request first"),
        (b"{", 400, "line 1: found no JSON"),
        (b"[]\n", 400, "line 1: found list"),
        (_lines({"prompt": "a", "chunk": "b"}), 400, "found 'chunk'; expected only prompt"),
        (_lines({"prompt": "a" * 3000}), 413, "expected at most 2000 bytes"),
    ],
)
def test_a_wrong_beginning_is_answered_with_a_status(
    connected: Connected, decoder: Path, body: bytes, status: int, said: str
) -> None:
    """The response has not begun yet."""
    service = Service(Config({"main": str(decoder)}, http=HttpConfig(body_bytes=2000)))
    response = _posted(connected, service, "/v1/stream", body)
    assert response.status_code == status
    assert said in response.json()["error"]["message"]
    assert response.headers["connection"] == "close"


def test_a_wrong_line_ends_the_response_with_an_error(connected: Connected, decoder: Path) -> None:
    """The verdicts before it were sent."""
    body = _lines({"prompt": "a"}, {"chunk": "b"}, {"chunk": 1}, {"chunk": "c"})
    service = Service(Config({"main": str(decoder)}))
    found = _objects(_posted(connected, service, "/v1/stream", body))
    assert len(found) == 3
    assert found[-1] == {"error": {"message": "chunk: found int; expected a text", "status": 400}}


def test_a_body_that_stops_arriving_is_ended(connected: Connected, decoder: Path) -> None:
    """After the time that a quiet stream has."""

    async def slow() -> AsyncIterator[bytes]:
        yield _lines({"prompt": "a"})
        await asyncio.sleep(5)

    config = Config({"main": str(decoder)}, streams=StreamConfig(stream_idle_s=0.1))
    found = _objects(_posted(connected, Service(config), "/v1/stream", slow()))
    assert found[-1]["error"]["status"] == 408


def test_the_events_of_an_answer_are_those_of_the_guard(
    connected: Connected, decoder: Path
) -> None:
    """The same tokens and texts, with a verdict each."""
    asked = {"prompt": "the river", "max_new_tokens": 4, "on_flag": "log"}
    service = Service(Config({"main": str(decoder)}))
    found = _objects(_posted(connected, service, "/v1/generate", json.dumps(asked)))
    expected = list(Guard.load(decoder, threads=1).generate(**asked))  # type: ignore[arg-type]
    assert [(one["kind"], one["token_id"], one["text"]) for one in found] == [
        (event.kind, event.token_id, event.text) for event in expected
    ]
    assert all(one["verdict"]["bundle_id"] for one in found)
    assert 'contract="native-streams"' in service.metrics.text().decode()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"temperature": "hot"}, "temperature: found str; expected a number"),
        ({"max_new_tokens": 0}, "max_new_tokens 0; expected a whole number"),
        ({"stop": [1]}, "stop: found [1]"),
        ({"on_flag": "x"}, "on_flag 'x'; expected one of"),
        ({"what": 1}, "found 'what'; expected only prompt"),
        ({"prompt": None}, "expected exactly one of text, prompt, messages"),
    ],
)
def test_a_wrong_setting_of_generate_is_answered_with_a_sentence(
    connected: Connected, decoder: Path, more: dict[str, Any], said: str
) -> None:
    """Before anything is generated."""
    service = Service(Config({"main": str(decoder)}))
    body = json.dumps({"prompt": "a", **more})
    response = _posted(connected, service, "/v1/generate", body)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


def test_an_encoder_generates_nothing(
    connected: Connected, make_service: Callable[..., Service]
) -> None:
    """A sentence says what the bundle lacks."""
    response = _posted(connected, make_service(), "/v1/generate", json.dumps({"prompt": "a"}))
    assert response.status_code == 400
    assert "expected the bundle of a decoder" in response.json()["error"]["message"]
