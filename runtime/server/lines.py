"""Bodies and responses of lines: one JSON object a line, or server-sent events.

A response of lines may begin before the request's body has ended, so that a client sees the answer
to its first line before it writes the second.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.errors import RefusedError, status_of
from layerguard.runtime.server.http import while_connected

T = TypeVar("T")
_LOG = logging.getLogger("layerguard.server")
_EVENTS = "text/event-stream"
_LINES = "application/x-ndjson"


async def read_lines(
    chunks: AsyncIterator[bytes], most: int, seconds: float
) -> AsyncIterator[dict[str, Any]]:
    """The objects of a body, as they arrive.

    Args:
        chunks: parts of the body.
        most: bytes of the whole body.
        seconds: to wait for the next part.

    Raises:
        InputError: a line is not an object.
        RefusedError: the body is too long or too slow.
    """
    rest, size, number = b"", 0, 0
    async for chunk in _timely(chunks, seconds):
        size += len(chunk)
        if size > most:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"body: found more; expected at most {most} bytes",
            )
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            for value in _object(line, number):
                yield value
    for value in _object(rest, number + 1):
        yield value


async def _timely(chunks: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    while (chunk := await within(seconds, anext(chunks, None))) is not None:
        yield chunk


async def within(seconds: float, part: Awaitable[T]) -> T:
    """The next part of what a client sends.

    Raises:
        RefusedError: it did not arrive in time.
    """
    try:
        async with asyncio.timeout(seconds):
            return await part
    except TimeoutError as error:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"body: found nothing for {seconds:g} s; expected a line"
        ) from error


def _object(line: bytes, number: int) -> list[dict[str, Any]]:
    """The object of a line; none for an empty line, or one of an event that holds no data."""
    text = line.strip()
    if text.startswith(b"data:"):
        text = text[5:]
    elif not text.startswith(b"{") and (not text or b":" in text.partition(b" ")[0]):
        return []
    return [parsed_object(text, f"line {number}")]


def parsed_object(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object of a line or message.

    Raises:
        InputError: it is none; the message calls it ``what``.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: found no JSON ({error}); expected an object") from error
    if not isinstance(value, dict):
        raise InputError(f"{what}: found {type(value).__name__}; expected an object")
    return value


class LinesResponse(Response):
    """A response whose objects are sent one by one; an error ends it with an object of its own."""

    def __init__(
        self, request: HttpRequest, objects: AsyncIterator[Any], *, reads_body: bool = False
    ) -> None:
        """Send ``objects`` as server-sent events if the client accepts those, else as lines.

        ``reads_body`` says that the objects read the request's body; they then end when the client
        goes away.
        """
        self._events = _EVENTS in request.headers.get("accept", "")
        super().__init__(media_type=_EVENTS if self._events else _LINES)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self._request, self._objects, self._reads_body = request, objects, reads_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, as long as the client is there."""
        del scope, receive  # the request has both
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        sending = self._send(send)
        with suppress(ClientDisconnect):
            await (sending if self._reads_body else while_connected(self._request, sending))

    async def _send(self, send: Send) -> None:
        async for value in _or_error(self._objects):
            line = compact(value)
            body = f"data: {line}\n\n" if self._events else f"{line}\n"
            await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _or_error(objects: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The objects; then, if there was an error, an object that says so."""
    try:
        async for value in objects:
            yield value
    except ClientDisconnect:
        raise
    except Exception as error:  # noqa: BLE001  the status line was sent already
        yield error_object(error)


def error_object(error: Exception) -> dict[str, Any]:
    """What a client reads that has had the beginning of its response; a failure is logged."""
    status = status_of(error)
    message = str(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("a response failed after its beginning", exc_info=error)
        message = "the guard failed; its log has the reason"
    return {"error": {"message": message, "status": int(status)}}


def compact(value: Any) -> str:
    """JSON without blanks, in ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
