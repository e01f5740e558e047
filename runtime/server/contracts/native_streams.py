"""LayerGuard's own contract for answers that are still being written.

``/v1/stream``: the first line of the body is a request, ``{"prompt"}`` or ``{"messages",
"tools"?}``, with a ``domain`` and a ``bundle`` if need be; each later one is a part of the answer,
``{"chunk"}``. Each line is answered with one, the verdict on everything so far. A WebSocket has a
message for each line. ``/v1/generate`` lets the bundle's own model write the answer, and gives a
line for each ``Event``.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import Event
from layerguard.runtime.server.contracts import native_schema
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    Socket,
    field,
)
from layerguard.runtime.server.contracts.native import error, known, parsed
from layerguard.runtime.server.lines import LinesResponse, read_lines
from layerguard.runtime.types import json_ready

_OPENING = ("prompt", "messages", "tools", "domain", "bundle")
_SAMPLING = {
    "max_new_tokens": int, "on_flag": str, "temperature": float, "top_k": int, "top_p": float,
    "seed": int, "stop": list,
}  # fmt: skip


async def stream(call: Call) -> Response:
    """A line for each line of the body."""
    config = call.service.config
    lines = read_lines(call.chunks(), config.http.body_bytes, config.streams.stream_idle_s)
    found = verdicts(call, lines)
    first = await anext(found)  # an error here has its own status

    async def objects() -> AsyncIterator[dict[str, Any]]:
        async with aclosing(found):
            yield first
            async for one in found:
                yield one

    return LinesResponse(call.request, objects(), reads_body=True)


async def verdicts(
    call: Call, lines: AsyncIterator[dict[str, Any]]
) -> AsyncGenerator[dict[str, Any], None]:
    """The verdict on everything so far, for each object of the client."""
    opening = await anext(lines, None)
    if opening is None:
        raise InputError("found nothing; expected an object with a request first")
    known(opening, _OPENING)
    key = secrets.token_hex(16)
    asked = {
        "request": parsed(opening),
        "domain": field(opening, "domain", str, None),
        "bundle": field(opening, "bundle", str, None),
    }
    try:
        text = ""
        yield (await call.push(key, text, **asked)).to_json()
        async for line in lines:
            known(line, ("chunk",))
            text += field(line, "chunk", str)
            yield (await call.push(key, text, **asked)).to_json()
    finally:
        call.service.close(key)


async def upgrade(call: Call) -> Response:
    """What a GET gets that is no WebSocket, or is none for want of a library."""
    if call.http.headers.get("upgrade", "").lower() == "websocket":
        status = HTTPStatus.NOT_IMPLEMENTED
        message = (
            "found a WebSocket, which needs websockets on the server: pip install 'layerguard[ws]' "
            "there; or POST the same lines"
        )
    else:
        status = HTTPStatus.UPGRADE_REQUIRED
        message = "found a GET; expected a WebSocket, or a POST of lines"
    response = error(Fault(int(status), message, call.http.url.path))
    response.headers["upgrade"] = "websocket"
    return response


async def generate(call: Call) -> Response:
    """A line for each event of the answer."""
    body = call.object()
    known(body, (*_OPENING, *_SAMPLING))
    asked = parsed(body)
    sampling = {name: field(body, name, kind, None) for name, kind in _SAMPLING.items()}
    if call.service.mode(call.contract) != "enforce":
        sampling["on_flag"] = "log"
    name, guard = call.service.named(field(body, "bundle", str, None))
    request = {key: body.get(key) for key in ("prompt", "messages", "tools")}
    arguments = {"domain": field(body, "domain", str, None), **request, **sampling}
    given = {key: value for key, value in arguments.items() if value is not None}
    began = asyncio.get_running_loop().time()
    events = await call.service.run(partial(guard.generate, **given))
    first = await call.service.run(partial(next, events))

    async def objects() -> AsyncIterator[dict[str, Any]]:
        event: Event | None = first
        worst, text = first, ""
        try:
            while event is not None:
                worst = event if event.verdict.flagged and not worst.verdict.flagged else worst
                text += event.text
                yield json_ready(event)
                event = await call.service.run(partial(next, events, None))
        finally:  # what was shown is kept, even if the client is gone
            answer = call.service.judged(name, guard, worst.verdict, call.contract)
            call.service.keep(answer, asked, call.contract, "response", began, text)

    return LinesResponse(call.request, objects())


CONTRACT = Contract(
    "native-streams",
    (
        Endpoint("POST", "/v1/stream", stream, streams=True, operation=native_schema.STREAM),
        Endpoint("GET", "/v1/stream", upgrade),
        Endpoint("POST", "/v1/generate", generate, operation=native_schema.GENERATE),
    ),
    error,
    (Socket("/v1/stream", verdicts),),
)
