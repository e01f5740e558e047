"""WebSockets: the objects of a client as messages, and a message for each of them.

Before the handshake ends, a refusal is an HTTP response, as for any other call. After it, an error
is a message with the object that ends a response of lines, and a close code that says the same.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Never
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect

from layerguard.runtime.server.contracts.contract import Call, Socket
from layerguard.runtime.server.errors import RefusedError
from layerguard.runtime.server.http import while_watched
from layerguard.runtime.server.lines import compact, error_object, parsed_object, within

_WAITING = 32
"""Messages of a client that wait for their turn; the next ones wait in its connection."""
_CODES = {400: 1007, 408: 1008, 413: 1009, 500: 1011, 503: 1013}
"""Close codes (RFC 6455 and its registry) by HTTP status: wrong data, policy, too large, failed,
try again later."""
_LONGEST_REASON = 123
"""Bytes that a close frame has for its reason."""
_END = {"end": True}


def need_same_origin(websocket: WebSocket) -> None:
    """Refuse the pages of other sites: a browser lets any page open a WebSocket to any server.

    Raises:
        RefusedError: the client names an origin that is not this server's address.
    """
    origin = websocket.headers.get("origin")
    host = websocket.headers.get("host", "")
    if origin is not None and _host_of(origin) != host.lower():
        raise RefusedError(
            HTTPStatus.FORBIDDEN,
            f"origin: found {origin[:80]!r}; expected no browser's page, or one of {host[:80]!r}",
        )


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # brackets that hold no address
        return origin


async def converse(websocket: WebSocket, socket: Socket, call: Call) -> None:
    """Answer the messages of an open WebSocket, and close it.

    The work ends with the client. ``{"end": true}`` gives the last answer again.
    """
    config = call.service.config
    idle_s = config.streams.stream_idle_s
    messages: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
    talking = _talk(websocket, socket.converse(call, _objects(messages, idle_s)), idle_s)
    receiving = partial(_receive, websocket, messages, config.http.body_bytes)
    with suppress(WebSocketDisconnect, TimeoutError):
        try:
            await while_watched(talking, receiving)
            await websocket.close()
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  the handshake is over
            told = error_object(error)
            fault = told["error"]
            reason = fault["message"].encode()[:_LONGEST_REASON].decode(errors="ignore")
            async with asyncio.timeout(idle_s):
                await websocket.send_text(compact(told))
                await websocket.close(_CODES[fault["status"]], reason)


async def _talk(
    websocket: WebSocket, answers: AsyncGenerator[dict[str, Any], None], seconds: float
) -> None:
    """Send the answers, and the last one again; the client must read them in time."""
    last = None
    async with aclosing(answers):
        async for answer in answers:
            last = compact(answer)
            await within(seconds, websocket.send_text(last))
    if last is not None:
        await within(seconds, websocket.send_text(last))


async def _objects(messages: asyncio.Queue[bytes], seconds: float) -> AsyncIterator[dict[str, Any]]:
    """The objects of the client, until it says that there are no more."""
    number = 0
    while True:
        message = await within(seconds, messages.get())
        number += 1
        value = parsed_object(message, f"message {number}")
        if value == _END:
            return
        yield value


async def _receive(websocket: WebSocket, messages: asyncio.Queue[bytes], most: int) -> Never:
    """Pass on what the client sends, until it goes away.

    Raises:
        RefusedError: its messages have more than ``most`` bytes.
        WebSocketDisconnect: it has gone, or the server shuts down.
    """
    size = 0
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event["code"])
        message = event.get("bytes") or (event.get("text") or "").encode()
        size += len(message)
        if size > most:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"messages: found more; expected at most {most} bytes in all",
            )
        await messages.put(message)
