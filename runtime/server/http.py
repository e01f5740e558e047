"""What every call has in common: its key, its body within limits, and a client that may go away."""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, Never, TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.requests import Request as HttpRequest

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.errors import RefusedError

T = TypeVar("T")
_LONGEST_ID = 128
_DISCARDED = 16
"""Times the limit that a body may have and still be received, but not kept: its client then reads
the refusal. Others see their connection closed while they send."""

_KEY_HEADERS = ("x-api-key", "api-key", "ocp-apim-subscription-key")
"""Headers that hold an API key, beside ``Authorization: Bearer``."""


class Keys:
    """API keys, of which only hashes are kept."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    @classmethod
    def read(cls, path: str) -> "Keys":
        """The keys of a file, one a line; no keys if the path is empty.

        Raises:
            InputError: the file cannot be read, or has no key.
        """
        if not path:
            return cls()
        try:
            lines = Path(path).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: {why}; expected a file with one key per line") from error
        if not lines:
            raise InputError(f"{path}: found no key; expected one per line")
        return cls(lines)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def need(self, request: HTTPConnection) -> None:
        """Check the key of a request, in a time that does not depend on it.

        Raises:
            RefusedError: there are keys, and the request has none of them.
        """
        if not self._digests:
            return
        headers = request.headers
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        given = _digest(bearer or next(filter(None, map(headers.get, _KEY_HEADERS)), ""))
        if not sum(hmac.compare_digest(given, own) for own in self._digests):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "found no valid API key; expected one as 'Authorization: Bearer KEY' or "
                "'x-api-key: KEY'",
            )


async def read_body(request: HttpRequest, most: int, seconds: float) -> bytes:
    """The body of a request.

    Args:
        request: the request.
        most: bytes that it may have.
        seconds: that it may take.

    Raises:
        RefusedError: it is larger, slower or encoded.
        ClientDisconnect: the client is gone.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "content-encoding: found an encoded body; expected a plain one",
        )
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    chunks = []
    try:
        async with asyncio.timeout(seconds):
            if size <= most * _DISCARDED:
                size = 0
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        chunks.append(chunk)
                    elif size > most * _DISCARDED:
                        break
    except TimeoutError as error:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"body: found a part after {seconds:g} s; expected all"
        ) from error
    if size > most:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: found more; expected at most {most} bytes"
        )
    return b"".join(chunks)


async def while_connected(request: HttpRequest, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled if the client goes away.

    The request's body must have been read. The work runs in this task, which is much cheaper than
    in one of its own.

    Raises:
        ClientDisconnect: the client is gone.
    """
    return await while_watched(work, partial(_disconnected, request))


async def while_watched(work: Awaitable[T], watch: Callable[[], Awaitable[Never]]) -> T:
    """The result of some work, which is cancelled once ``watch`` raises.

    The work runs in this task, which is much cheaper than in one of its own.

    Raises:
        Exception: what ``work`` raised; or ``watch``, if that came first.
    """
    task = asyncio.current_task()
    assert task is not None
    watching = asyncio.ensure_future(_cancelling(task, watch))
    try:
        return await work
    except asyncio.CancelledError:
        if not watching.done() or task.uncancel():  # somebody else cancels this task
            raise
        watching.result()
        raise
    finally:
        if not watching.cancel() and not watching.cancelled():
            watching.exception()  # an error that nobody asks for is not reported


async def _cancelling(task: asyncio.Task[Any], watch: Callable[[], Awaitable[Never]]) -> None:
    """Cancel a task once ``watch`` raises."""
    try:
        await watch()
    except Exception:
        task.cancel()
        raise


def request_id(request: HTTPConnection) -> str:
    """The client's id of a request, if it has a usable one; else a new one."""
    given = request.headers.get("x-request-id", "")
    usable = given.isascii() and given.isprintable() and 0 < len(given) <= _LONGEST_ID
    return given if usable else secrets.token_hex(16)


async def _disconnected(request: HttpRequest) -> Never:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
