"""The middleware over answers that are streamed: no event leaves before it was read."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.integrations.asgi import GuardMiddleware
from layerguard.runtime import Guard
from tests import tiny_decoder
from tests.integrations.bundles import TOY, Texts, flagging
from tests.integrations.client import Answer, Model, ask, streamed

CALLS = [
    {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "look"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"boats"}'}}]},
]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard that reads an answer token by token."""
    folder = tmp_path_factory.mktemp("decoder") / "guard"
    return Guard.load(flagging(folder, tiny_decoder.make_bundle), threads=1)


def _chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "stream": True, **more}


def _answer(guard: Guard, model: Model, body: Any, path: str = "/v1/chat/completions") -> Answer:
    return asyncio.run(ask(GuardMiddleware(model, guard), body, path))


def _words(text: str) -> list[str]:
    return [f" {word}" for word in text.split()]


def test_passes_a_harmless_stream(guard: Guard, said: Texts) -> None:
    """Every byte as the application sent it, comments and usage too, and the end."""
    model = streamed({"role": "assistant"}, *_words(said.answer), {"content": None})
    model.parts = [
        b": ping\r\n\r\n",
        *model.parts,
        b'data: {"choices": [], "usage": {}}\n\n',
        b"event: last\ndata: [DONE]",
    ]
    answer = _answer(guard, model, _chat(said.harmless))
    assert (answer.status, answer.body, answer.complete) == (200, b"".join(model.parts), True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_a_flagged_stream_however_it_is_cut(guard: Guard, said: Texts, end: bytes) -> None:
    """Into single bytes, with any line ends."""
    body = b"".join(streamed(*_words(said.flagged_answer)).parts).replace(b"\n", end)
    model = Model([bytes([byte]) for byte in body], b"text/event-stream")
    answer = _answer(guard, model, _chat(said.harmless))
    assert (answer.status, answer.code) == (400, "content_filter")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_an_event_of_several_lines(guard: Guard, said: Texts, end: bytes) -> None:
    """Its lines of data are one text."""
    delta = json.dumps({"content": said.flagged_answer}).encode()
    lines = [b"event: chunk", b'data: {"choices": [', b'data: {"index": 0, "delta": %s}]}' % delta]
    model = Model([end.join([*lines, b"", b""])], b"text/event-stream")
    answer = _answer(guard, model, _chat(said.harmless))
    assert (answer.status, answer.code) == (400, "content_filter")


def test_blocks_a_short_stream_before_its_first_event(guard: Guard, said: Texts) -> None:
    """A bundle that does not read token by token holds it back until it was checked."""
    answer = _answer(guard, streamed(*_words(said.flagged_answer)), _chat(said.harmless))
    assert (answer.status, answer.code, answer.complete) == (400, "content_filter", True)


def test_passes_each_event_at_once_from_a_decoder(decoder: Guard) -> None:
    """The client has it before the application writes the next one."""
    model = streamed(*_words(TOY.answer))
    answer = _answer(decoder, model, _chat(TOY.harmless))
    assert answer.parts == model.parts


def test_blocks_a_flagged_stream_in_the_middle(decoder: Guard) -> None:
    """What was read is with the client; an error and the end follow, and the model stops."""
    model = streamed(*_words(TOY.answer), *_words(TOY.flagged) * 30)
    answer = _answer(decoder, model, _chat(TOY.harmless))
    *sent, error, end = answer.events
    assert answer.status == 200
    assert len(sent) >= len(TOY.answer.split())
    assert b"".join(model.parts).startswith(b"".join(answer.parts[: len(sent)]))
    assert json.loads(error)["error"]["code"] == "content_filter"
    assert end == "[DONE]"
    assert answer.complete
    assert model.stopped
    assert model.sent <= len(sent) + 1


def test_blocks_what_an_application_says_after_the_refusal(decoder: Guard) -> None:
    """Also one that goes on when it is cancelled."""
    model = streamed(*_words(TOY.answer), *_words(TOY.flagged) * 30)
    stubborn: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await model(scope, receive, send)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": model.parts[0]})
            stubborn.append(1)

    answer = asyncio.run(ask(GuardMiddleware(app, decoder), _chat(TOY.harmless)))
    assert stubborn == [1]
    assert answer.events[-1] == "[DONE]"


def test_the_client_gets_no_event_that_is_flagged(decoder: Guard) -> None:
    """The guard flags the prompt with the next event, and passes it with those that were sent."""
    deltas = [*_words(TOY.answer), *_words(TOY.flagged) * 30]
    answer = _answer(decoder, streamed(*deltas), _chat(TOY.harmless))
    sent = len(answer.events) - 2
    for length, flagged in ((sent, False), (sent + 1, True)):
        verdict = decoder.check(prompt=TOY.harmless, response="".join(deltas[:length]))
        assert verdict.flagged == flagged


def test_blocks_the_second_choice_of_a_stream(guard: Guard, said: Texts) -> None:
    """Two choices by turns, each read on its own."""
    good, bad = _words(said.answer), _words(said.flagged_answer)
    deltas = [pair for g, b in zip(good, bad, strict=False) for pair in ((0, g), (1, b))]
    rest = [(1, word) for word in bad[len(good) :]]
    answer = _answer(guard, streamed(*deltas, *rest), _chat(said.harmless, n=2))
    assert answer.code == "content_filter"


def test_blocks_a_streamed_text_completion(guard: Guard, said: Texts) -> None:
    """Its choices have texts, no deltas."""
    choices = [{"index": 0, "text": word} for word in _words(said.flagged_answer)]
    events = [b"data: %s\n\n" % json.dumps({"choices": [c]}).encode() for c in choices]
    body = {"prompt": said.harmless, "stream": True}
    answer = _answer(guard, Model(events, b"text/event-stream"), body, "/v1/completions")
    assert answer.code == "content_filter"


def test_blocks_streamed_reasoning(guard: Guard, said: Texts) -> None:
    """It is text that a user may see."""
    deltas = [{"reasoning_content": word} for word in _words(said.flagged_answer)]
    assert _answer(guard, streamed(*deltas), _chat(said.harmless)).code == "content_filter"


def test_tool_calls_leave_at_the_end(decoder: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put together and checked with their chat; text before them leaves at once."""
    checked: list[Any] = []
    check = Guard.check

    def noted(self: Guard, **named: Any) -> Any:
        checked.append(named)
        return check(self, TOY.harmless)  # the toy flags words that it does not know

    monkeypatch.setattr(Guard, "check", noted)
    model = streamed(" boats", *CALLS)
    answer = _answer(decoder, model, _chat(TOY.harmless))
    assert answer.parts == [model.parts[0], b"".join(model.parts[1:])]
    function = {"name": "look", "arguments": '{"at": "boats"}'}
    call = {"index": 0, "id": "1", "type": "function", "function": function}
    turn = {"role": "assistant", "content": " boats", "tool_calls": [call]}
    assert checked[-1]["messages"][-1] == turn


def test_fails_closed_where_the_guard_raises_at_a_tool_call(
    decoder: Guard, break_guard: Callable[[], None]
) -> None:
    """Nothing of the call reaches the client."""
    model = streamed(" boats", *CALLS)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        break_guard()
        await model(scope, receive, send)

    answer = asyncio.run(ask(GuardMiddleware(app, decoder), _chat(TOY.harmless)))
    assert json.loads(answer.events[-2])["error"]["code"] == "guard_failed"
    assert b"look" not in answer.body


def test_fails_closed_where_the_guard_raises_in_the_middle(
    decoder: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third chunk cannot be read: the client has two, and the error."""
    model = streamed(*_words(TOY.answer))
    push, count = type(decoder.stream("a")).push, []

    def fails(self: Any, chunk: Any) -> Any:
        count.append(chunk)
        if len(count) == 3:
            raise RuntimeError("the graph failed")
        return push(self, chunk)

    monkeypatch.setattr("layerguard.runtime.streaming.stream.Stream.push", fails)
    answer = _answer(decoder, model, _chat(TOY.harmless))
    assert answer.parts[:2] == model.parts[:2]
    assert json.loads(answer.events[2])["error"]["code"] == "guard_failed"
    assert model.stopped


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b'data: {"choices": 1}\n\n',
        b'data: {"error": null, "choices": [{"delta": {"audio": {"id": 1}}}]}\n\n',
        b'data: {"choices": [{"delta": {"audio": {"data": "aGVsbG8="}}}]}\n\n',
        b'data: {"choices": [{"index": 1, "delta": {"content": "a"}}]}\n\n',
        b'data: {"choices": [{"index": "0", "delta": {"content": "a"}}]}\n\n',
    ],
    ids=["not JSON", "no choices", "sound beside an error", "sound", "no such choice", "no index"],
)
def test_fails_closed_on_an_event_that_cannot_be_read(
    guard: Guard, said: Texts, event: bytes
) -> None:
    """Before the first event has left, with a status."""
    answer = _answer(guard, Model([event], b"text/event-stream"), _chat(said.harmless))
    assert (answer.status, answer.code) == (503, "guard_failed")


def test_passes_an_error_that_the_application_streams(guard: Guard, said: Texts) -> None:
    """It has no text of a model."""
    event = b'data: {"error": {"message": "overloaded"}}\n\n'
    answer = _answer(guard, Model([event], b"text/event-stream"), _chat(said.harmless))
    assert answer.body == event


def test_passes_each_event_to_its_own_stream(decoder: Guard) -> None:
    """Sixteen at once, of four lengths: each client gets the events of its own request."""
    words = _words(TOY.answer)

    def events(number: int) -> Model:
        marked = b'data: {"choices": [], "id": %d}\n\n' % number
        return streamed(*words[: number % 4 + 1], end=marked)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = json.loads((await receive())["body"])["seed"]

        async def once() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        await events(number)(scope, once, send)

    async def run() -> list[Answer]:
        guarded = GuardMiddleware(app, decoder)
        return await asyncio.gather(
            *(ask(guarded, _chat(TOY.harmless, seed=number)) for number in range(16))
        )

    for number, answer in enumerate(asyncio.run(run())):
        assert answer.parts == events(number).parts


def test_each_answer_counts_once_in_the_flag_rate(guard: Guard, said: Texts) -> None:
    """Beside its request, whether it is flagged or passes."""
    for text in (said.answer, said.flagged_answer):
        before = guard.monitor.n
        _answer(guard, streamed(*_words(text)), _chat(said.harmless))
        assert guard.monitor.n == before + 2


def test_a_cancelled_request_cancels_the_application(guard: Guard, said: Texts) -> None:
    """As a server does when it shuts down."""
    began, cancelled = asyncio.Event(), []

    async def app(*_: Any) -> None:
        began.set()
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def run() -> None:
        task = asyncio.create_task(ask(GuardMiddleware(app, guard), _chat(said.harmless)))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert cancelled == [1]


def test_a_request_cancelled_after_its_refusal_is_cancelled(decoder: Guard) -> None:
    """A server that shuts down is heard, though the application ends slowly."""
    model = streamed(*_words(TOY.answer), *_words(TOY.flagged) * 30)
    ending = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await model(scope, receive, send)
        finally:
            ending.set()
            await asyncio.Future()

    async def run() -> None:
        task = asyncio.create_task(ask(GuardMiddleware(app, decoder), _chat(TOY.harmless)))
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_the_toy_bundle_is_flagging(tmp_path: Path) -> None:
    """What these tests take for granted of a bundle that reads token by token."""
    decoder = Guard.load(flagging(tmp_path / "guard", tiny_decoder.make_bundle), threads=1)
    assert decoder.streams.rescoring is None
    assert not decoder.check(TOY.harmless).flagged
    assert decoder.check(TOY.flagged).flagged
