"""Sends each callback of a growing answer to the replica that keeps the answer.

A gateway repeats the id of a call in the body of every callback, where no load balancer sees it.
The replica that gets a callback reads the id, and lets the owner of the id answer. Which replica
owns an id, and what happens if it is gone, is up to ``send``.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerguard.runtime.server.config import HttpConfig
from layerguard.runtime.server.contracts import CONTRACTS
from layerguard.runtime.server.http import while_connected

_LOG = logging.getLogger("layerguard.server")

CALL_IDS = {
    (endpoint.method, endpoint.path): endpoint.call_id
    for contract in CONTRACTS
    for endpoint in contract.endpoints
    if endpoint.call_id
}
"""The field of the body with the id of the call, by method and path."""

_NEVER_SENT = 499
"""Status of a response to a client that is gone."""

_SCOPE = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string",
          "root_path", "headers", "client", "server")  # fmt: skip
"""What the owner needs of the ASGI scope; all of it can be pickled."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request with its whole body."""

    scope: dict[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The response to it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Forwarding:
    """An ASGI application before another one, which it asks about all other requests.

    Attributes:
        waiting: requests whose answer from the owner is being waited for.
    """

    def __init__(
        self,
        app: ASGIApp,
        http: HttpConfig,
        send: Callable[[str, Forwarded], Awaitable[Answered]],
        passed_on: Collection[type[Exception]] = (),
        session_header: str = "x-session-id",
    ) -> None:
        """Wrap an application.

        Args:
            app: answers here.
            http: limits of a body; of ``connections``, as many requests are forwarded at a time,
                and further ones are answered here.
            send: lets the owner of an id answer.
            passed_on: errors of ``send`` after which the request is answered here.
            session_header: header that has the id if the request was already sent to its owner.
        """
        self._app, self._http, self._send = app, http, send
        self._passed_on, self._session = tuple(passed_on), session_header.encode()
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let its owner do it."""
        field = CALL_IDS.get((scope.get("method", ""), _path(scope)))
        if scope["type"] != "http" or field is None:
            await self._app(scope, receive, send)
            return
        messages = await self._arrived(receive)
        body = b"".join(message.get("body", b"") for message in messages)
        last = messages[-1]
        whole = last["type"] == "http.request" and not last.get("more_body", False)
        key = _call_id(body, field) if whole and len(body) <= self._http.body_bytes else ""
        answer = await self._from_owner(key, Forwarded(_plain(scope), body), scope, receive)
        if answer is None:  # also a body that is too large or too slow, or a client that is gone
            await self._app(scope, _again(messages, receive), send)
            return
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _arrived(self, receive: Receive) -> list[Message]:
        """The messages of a body; those until a limit, if it is larger or slower."""
        messages: list[Message] = []
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._http.read_s):
                while size <= self._http.body_bytes:
                    messages.append(await receive())
                    size += len(messages[-1].get("body", b""))
                    if not messages[-1].get("more_body", False):
                        break
        return messages or [{"type": "http.request", "body": b"", "more_body": True}]

    async def _from_owner(
        self, key: str, request: Forwarded, scope: Scope, receive: Receive
    ) -> Answered | None:
        """The owner's answer; None if the request is to be answered here."""
        here = dict(scope["headers"]).get(self._session) == key.encode()
        if not key or here or self.waiting >= self._http.connections:
            return None
        self.waiting += 1
        try:
            return await while_connected(HttpRequest(scope, receive), self._send(key, request))
        except ClientDisconnect:
            return Answered(_NEVER_SENT, (), b"")
        except self._passed_on as error:
            _LOG.warning("the owner of a call did not answer, this replica does: %s", error)
            return None
        finally:
            self.waiting -= 1


async def answer(app: ASGIApp, request: Forwarded) -> Answered:
    """What an application answers to a forwarded request."""
    status = 500
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parts: list[bytes] = []

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = tuple((bytes(name), bytes(value)) for name, value in message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(request.scope, _again([{"type": "http.request", "body": request.body}], _never), send)
    return Answered(status, headers, b"".join(parts))


def _plain(scope: Scope) -> dict[str, Any]:
    return {name: scope.get(name) for name in _SCOPE}


def _call_id(body: bytes, field: str) -> str:
    """The id in a body; empty if there is none, or if the body is not what its contract expects."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    key = value.get(field) if isinstance(value, dict) else None
    try:
        return key if isinstance(key, str) and key.encode() else ""
    except UnicodeEncodeError:  # a lone surrogate
        return ""


def _path(scope: Scope) -> str:
    """The path below the prefix at which the application is mounted."""
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", ""))


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Gives some messages, then those that follow them."""
    left = iter(messages)

    async def give() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return give


async def _never() -> Message:
    """A client that stays; whoever forwards cancels the call of one that does not."""
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")
