"""The middleware: which requests are guarded, and how the application is run under it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from layerguard.integrations.asgi.exchange import Exchange, Message, Send, reply
from layerguard.integrations.asgi.openai_form import error
from layerguard.integrations.gate import REFUSAL, Gate
from layerguard.runtime import Guard

Receive = Callable[[], Awaitable[Message]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class GuardMiddleware:
    """Guards each POST to ``.../completions`` and ``.../responses``; other requests pass unread."""

    def __init__(
        self,
        app: Application,
        guard: Guard | str | Path,
        *,
        refusal: str = REFUSAL,
        max_body_bytes: int = 8 << 20,
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            guard: a guard or a bundle; see ``Gate``.
            refusal: message of the error that a client gets in place of a flagged text.
            max_body_bytes: a longer request is refused.

        Raises:
            BundleError: as ``Guard.load``.
            MachineError: as ``Guard.load``.
        """
        self._app, self._gate = app, Gate(guard)
        self._refusal, self._max_body_bytes = refusal, max_body_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not _is_guarded(scope):
            await self._app(scope, receive, send)
            return
        body = await self._body(receive)
        if body is None:  # the client left
            return
        if len(body) > self._max_body_bytes:
            text = f"found a body of more than {self._max_body_bytes} bytes; send a shorter one"
            await reply(send, 413, error(text, "invalid_request_error", "too_long"))
            return
        exchange = Exchange(self._gate, self._refusal, send)
        if await exchange.admits(body):
            await self._run(scope, _replayed(body, receive), exchange)

    async def _run(self, scope: Message, receive: Receive, exchange: Exchange) -> None:
        """Run the application in a task of its own, which a refusal cancels."""
        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        scope = {**scope, "headers": plain, "extensions": {}}  # a readable body, by ``send`` alone
        task = asyncio.ensure_future(self._app(scope, receive, exchange.send))
        exchange.application = task
        try:
            await task
        except (Exception, asyncio.CancelledError):
            current = asyncio.current_task()
            if not exchange.stopped or (current is not None and current.cancelling()):
                raise

    async def _body(self, receive: Receive) -> bytes | None:
        """The request's body, read no further than it may be long; None if the client left."""
        body, more = b"", True
        while more and len(body) <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body


def _is_guarded(scope: Message) -> bool:
    is_post = scope["type"] == "http" and scope["method"] == "POST"
    return is_post and str(scope["path"]).rstrip("/").endswith(_GUARDED)


_GUARDED = ("/completions", "/responses")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once more, then what the server gives."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return again
