"""The middleware in a FastAPI application behind uvicorn, asked by OpenAI's own client."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from layerguard.integrations.gate import FAILED, REFUSAL
from tests.integrations import page
from tests.integrations.bundles import Texts

pytest.importorskip("fastapi", reason="needs FastAPI: run `make integrations`")
pytest.importorskip("uvicorn", reason="needs uvicorn: run `make integrations`")
pytest.importorskip("openai", reason="needs OpenAI's client: run `make integrations`")
import uvicorn
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import APIError, BadRequestError, InternalServerError, OpenAI


class Server:
    """The application of the page with a model that says what it is told.

    Attributes:
        answer: what the model says.
        calls: how often it was asked.
    """

    def __init__(self) -> None:
        self.answer, self.calls = "", 0
        self.app = page.run("FastAPI and Starlette")["app"]
        self.app.add_api_route("/v1/chat/completions", self._respond, methods=["POST"])

    async def _respond(self, request: Request) -> Any:
        self.calls += 1
        if not (await request.json()).get("stream"):
            message = {"role": "assistant", "content": self.answer}
            return JSONResponse(_chunk(message=message, finish_reason="stop"))
        words = [f" {word}" for word in self.answer.split()]
        chunks = [json.dumps(_chunk(delta={"content": word})) for word in words]
        events = (f"data: {data}\n\n" for data in [*chunks, "[DONE]"])
        return StreamingResponse(events, media_type="text/event-stream")


def _chunk(**choice: Any) -> dict[str, Any]:
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, **choice}]}  # fmt: skip


@pytest.fixture
def served() -> Iterator[tuple[Server, OpenAI]]:
    """A running server and its client."""
    server = Server()
    config = uvicorn.Config(server.app, host="127.0.0.1", port=0, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        thread.join(0.05)
    port = running.servers[0].sockets[0].getsockname()[1]
    with OpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
        yield server, client
    running.should_exit = True
    thread.join()


def _ask(client: OpenAI, text: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="m", messages=messages, **more)  # type: ignore[call-overload]


def _streamed(client: OpenAI, text: str) -> str:
    return "".join(chunk.choices[0].delta.content for chunk in _ask(client, text, stream=True))


def test_passes_a_harmless_chat(served: tuple[Server, OpenAI], said: Texts) -> None:
    """Whole and streamed."""
    server, client = served
    server.answer = said.answer
    assert _ask(client, said.harmless).choices[0].message.content == said.answer
    assert _streamed(client, said.harmless).split() == said.answer.split()


def test_blocks_a_flagged_prompt(served: tuple[Server, OpenAI], said: Texts) -> None:
    """The client raises the error of a content filter; the model is not asked."""
    server, client = served
    with pytest.raises(BadRequestError, match=REFUSAL) as caught:
        _ask(client, said.flagged)
    assert caught.value.code == "content_filter"
    assert server.calls == 0


def test_blocks_a_flagged_answer(served: tuple[Server, OpenAI], said: Texts) -> None:
    """Whole."""
    server, client = served
    server.answer = said.flagged_answer
    with pytest.raises(BadRequestError) as caught:
        _ask(client, said.harmless)
    assert caught.value.code == "content_filter"


def test_blocks_a_flagged_stream(served: tuple[Server, OpenAI], said: Texts) -> None:
    """The client raises an error in the midst of it, or before."""
    server, client = served
    server.answer = f"{said.answer} " * 3 + f"{said.flagged_answer} " * 12
    with pytest.raises(APIError) as caught:
        _streamed(client, said.harmless)
    assert caught.value.code == "content_filter"


def test_fails_closed_where_the_guard_raises(
    served: tuple[Server, OpenAI], said: Texts, break_guard: Callable[[], None]
) -> None:
    """With status 503."""
    server, client = served
    assert _ask(client, said.harmless)
    break_guard()
    with pytest.raises(InternalServerError, match=FAILED) as caught:
        _ask(client, said.harmless)
    assert (caught.value.status_code, caught.value.code) == (503, "guard_failed")
    assert server.calls == 1
