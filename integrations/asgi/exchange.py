"""One request and its answer, between the application and the client."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from layerguard.integrations.asgi.openai_form import Asked, error
from layerguard.integrations.asgi.streamed_answer import StreamedAnswer
from layerguard.integrations.asgi.whole_answer import WholeAnswer
from layerguard.integrations.gate import FAILED, Decision, Gate, check_each
from layerguard.runtime import Guard, InputError, Verdict

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Exchange:
    """Checks a request; then it is the application's ``send``, and checks the answer.

    Attributes:
        stopped: whether the client got a refusal; what the application still sends is dropped.
        application: the task in which the application runs; it is cancelled with a refusal.
    """

    def __init__(self, gate: Gate, refusal: str, send: Send) -> None:
        self.stopped = False
        self.application: asyncio.Task[None] | None = None
        self._gate, self._refusal, self._send = gate, refusal, send
        self._start: Message | None = None  # held back until the first part of the body may leave
        self._answer: StreamedAnswer | WholeAnswer | None = None

    async def admits(self, body: bytes) -> bool:
        """Whether the request may go on; if not, the refusal is sent."""
        decision = await self._gate.adecide(partial(self._ask, body))
        if decision.blocked:
            await self._stop(decision, in_request=True)
        return not decision.blocked

    def _ask(self, body: bytes, guard: Guard) -> Verdict:
        self._asked = Asked.of(body)
        self._verdict = check_each(guard, self._asked.questions())
        return self._verdict

    async def send(self, message: Message) -> None:
        """Take a message of the application, and pass on what may leave.

        Answers of status 300 and above hold no text of a model, and pass unread.
        """
        if self.stopped:
            return
        if message["type"] == "http.response.start" and message["status"] < 300:
            self._begin(message)
        elif self._answer is None:
            await self._send(message)
        else:
            data, last = message.get("body", b""), not message.get("more_body", False)
            push = partial(self._answer.push, data, last=last)
            decision = await self._gate.adecide(lambda _: push())
            if decision.blocked:
                await self._stop(decision)
            else:
                await self._pass_on(self._answer.release(), last=last)

    def _begin(self, start: Message) -> None:
        headers = {name.lower(): value for name, value in start.get("headers", ())}
        streams = headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        guard, asked, verdict = self._gate.guard, self._asked, self._verdict
        if streams and not asked.is_response:
            self._answer = StreamedAnswer(guard, asked, verdict)
        else:
            self._answer = WholeAnswer(guard, asked, verdict, is_events=streams)
        self._start = start

    async def _pass_on(self, data: bytes, *, last: bool) -> None:
        if not (data or last):
            return
        if self._start is not None:
            await self._send(self._start)
            self._start = None
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _stop(self, decision: Decision, *, in_request: bool = False) -> None:
        """Send the refusal, as an answer or as an event, and end the application."""
        self.stopped = True
        status, body = 503, error(FAILED, "server_error", "guard_failed")
        if decision.verdict is not None:
            status = 400
            body = error(self._refusal, "invalid_request_error", "content_filter")
        elif in_request and isinstance(decision.error, InputError):
            status = 400
            body = error(str(decision.error), "invalid_request_error", "unreadable")
        if self._answer is not None and self._start is None:
            event = b"data: " + body + b"\n\ndata: [DONE]\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            await reply(self._send, status, body)
        if self.application is not None:
            self.application.cancel()


async def reply(send: Send, status: int, body: bytes) -> None:
    """Send a whole answer of JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
