"""The middleware over the Responses API: what passes, and what does not."""

import asyncio
import json
from typing import Any

import pytest

from layerguard.integrations.asgi import GuardMiddleware
from layerguard.runtime import Guard
from tests.integrations.bundles import Texts
from tests.integrations.client import Answer, Model, ask

_PATH = "/v1/responses"


def _ask(guard: Guard, model: Model, body: Any) -> Answer:
    return asyncio.run(ask(GuardMiddleware(model, guard), body, _PATH))


def _output(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "1", "role": "assistant", "content": [part]}
    return {"id": "1", "object": "response", "status": "completed", "output": [item]}


def _model(text: str, *, streams: bool) -> Model:
    if not streams:
        return Model([json.dumps(_output(text)).encode()])
    events = [
        {"type": "response.output_text.delta", "item_id": "1", "delta": text},
        {"type": "response.completed", "response": _output(text)},
    ]
    parts = [
        b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events
    ]
    return Model(parts, b"text/event-stream")


@pytest.mark.parametrize("streams", [False, True])
def test_passes_a_harmless_call(guard: Guard, said: Texts, streams: bool) -> None:
    """With its bytes."""
    model = _model(said.answer, streams=streams)
    answer = _ask(guard, model, {"input": said.harmless, "stream": streams})
    assert (answer.status, answer.body) == (200, b"".join(model.parts))


@pytest.mark.parametrize("place", ["input", "item", "instructions", "output of a tool"])
def test_blocks_a_flagged_request(guard: Guard, said: Texts, place: str) -> None:
    """Wherever the text is."""
    body: dict[str, Any] = {"input": said.harmless}
    if place == "instructions":
        body["instructions"] = said.flagged
    elif place == "input":
        body["input"] = said.flagged
    else:
        item = {"role": "user", "content": [{"type": "input_text", "text": said.flagged}]}
        output = {"type": "function_call_output", "call_id": "1", "output": said.flagged}
        body["input"] = [item if place == "item" else output]
    model = _model(said.answer, streams=False)
    answer = _ask(guard, model, body)
    assert (answer.status, answer.code) == (400, "content_filter")
    assert model.seen == []


@pytest.mark.parametrize("streams", [False, True])
def test_blocks_a_flagged_answer(guard: Guard, said: Texts, streams: bool) -> None:
    """Nothing of it reaches the client."""
    model = _model(said.flagged_answer, streams=streams)
    answer = _ask(guard, model, {"input": said.harmless, "stream": streams})
    assert (answer.status, answer.code) == (400, "content_filter")


def test_an_answer_that_breaks_off_does_not_pass(guard: Guard, said: Texts) -> None:
    """What it would have held is not known."""
    model = _model(said.answer, streams=True)
    model.parts = model.parts[:1]
    answer = _ask(guard, model, {"input": said.harmless, "stream": True})
    assert (answer.status, answer.code) == (503, "guard_failed")


@pytest.mark.parametrize(
    "body",
    [
        {"input": "rain", "background": True},
        {"input": "rain", "prompt": {"id": "1"}},
        {"input": "rain", "messages": []},
        {"input": [1, 2]},
    ],
)
def test_refuses_what_it_cannot_read(guard: Guard, said: Texts, body: Any) -> None:
    """The application does not see it."""
    model = _model(said.answer, streams=False)
    assert _ask(guard, model, body).code == "unreadable"
    assert model.seen == []
