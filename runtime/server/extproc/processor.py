"""Envoy's external processor: requests and answers of OpenAI's interface on their way.

A request is read as a whole, and so is an answer (``BUFFERED``). An answer of server-sent events is
checked while it passes, if Envoy lets the processor choose so (``allow_mode_override``): the part
that the guard flags is replaced by an error, and nothing follows it. Calls of tools, and answers of
the Responses API, pass once they are complete.
"""

import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import grpc

from layerguard.runtime.errors import MachineError
from layerguard.runtime.server.answered import answered
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.contracts import moderations
from layerguard.runtime.server.contracts.contract import Fault
from layerguard.runtime.server.errors import RefusedError, status_of
from layerguard.runtime.server.extproc.chats import Events, answers_of, may_embed, requests_of
from layerguard.runtime.server.extproc.messages import (
    SERVICE,
    ProcessingRequest,
    ProcessingResponse,
    answer,
    go_on,
    header,
    phase_of,
    without_encoding,
)
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.openai_call import read_object
from layerguard.runtime.text.request import Request

_LOG = logging.getLogger("layerguard.server")
CONTRACT = "extproc"
"""For the operator's modes and the metrics."""

_FORBIDDEN = 403
_INT32 = 2**31 - 1
_HELD = 4
"""Times the largest body of a request that an answer may have, or of events the part of it that is
held back: they repeat much beside its text."""
_RECEIVED = 16
"""Times it that a message may have and still be received: it is then refused with a status. A
larger one ends the call, and Envoy's ``failure_mode_allow`` decides."""
_TRACE = ("traceparent", "tracestate")
"""Headers with the caller's span."""


async def listen(service: Service, host: str, port: int, *, shares: bool) -> grpc.aio.Server:
    """A server that processes what Envoy sends.

    Args:
        service: what answers.
        host: address to listen on.
        port: port to listen on.
        shares: whether several processes listen on the port.

    Raises:
        MachineError: the address cannot be used.
    """
    most = min(_RECEIVED * service.config.http.body_bytes, _INT32)
    options = [("grpc.so_reuseport", int(shares)), ("grpc.max_receive_message_length", most)]
    server = grpc.aio.server(options=options)

    async def process(messages: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        exchange = Exchange(service)
        try:
            async for message in messages:
                yield await exchange.respond(message)
        finally:
            exchange.close()

    method = grpc.stream_stream_rpc_method_handler(
        process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((handler,))
    try:
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise MachineError(
            f"cannot listen on {host} port {port} for external processing; expected a free "
            "address of this machine: choose another one with --extproc-port"
        ) from error
    await server.start()
    return server


class Exchange:
    """One request and its answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._key = secrets.token_hex(16)
        self._asked: Request | None = None
        self._events: Events | None = None
        self._may_embed = False
        self._is_error = False
        self._stopped = False
        self._trace: dict[str, str] = {}

    async def respond(self, message: Any) -> Any:
        """What Envoy shall do with a message; an error of the guard answers the client."""
        phase = phase_of(message)
        part = getattr(message, phase)
        if phase == "request_headers":
            self._trace = {name: header(part, name) for name in _TRACE}
        try:
            with self._service.continued(self._trace):
                return await self._respond(phase, part)
        except Exception as error:  # noqa: BLE001  every error has OpenAI's form
            if self._service.mode(CONTRACT) != "enforce":
                return go_on(phase)
            status, message = status_of(error), str(error)
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                _LOG.error("external processing failed", exc_info=error)
                message = "the guard failed; its log has the reason"
            form = moderations.error(Fault(int(status), message, phase))
            return answer(int(status), bytes(form.body))

    def close(self) -> None:
        """Forget the answer."""
        for index in self._events.messages if self._events else ():
            self._service.close(f"{self._key}/{index}")

    async def _respond(self, phase: str, part: Any) -> Any:
        if self._service.mode(CONTRACT) == "off":
            return go_on(phase)
        if phase == "request_headers":
            return without_encoding()
        if phase == "request_body":
            return await self._request(part)
        if phase == "response_headers":
            self._is_error = not header(part, ":status").startswith("2")
            if header(part, "content-type").lower().startswith("text/event-stream"):
                self._events = Events(_HELD * self._service.config.http.body_bytes)
                return go_on(phase, streams=True)
        if phase == "response_body" and self._asked is not None and not self._is_error:
            return await self._response(self._asked, part)
        return go_on(phase)

    async def _request(self, part: Any) -> Any:
        _need_at_most(self._service.config.http.body_bytes, part.body, "body")
        call = read_object(part.body, "body")
        asked = requests_of(call)
        answers = await self._service.check(asked, contract=CONTRACT)
        self._asked, self._may_embed = asked[-1], may_embed(call)
        return _blocked(answers) or go_on("request_body")

    async def _response(self, asked: Request, part: Any) -> Any:
        if self._events is not None:
            return await self._event(asked, self._events, part)
        _need_at_most(_HELD * self._service.config.http.body_bytes, part.body, "answer")
        body = read_object(part.body, "answer")
        if self._may_embed and not body.keys() & {"choices", "output"}:
            return go_on("response_body")  # embeddings, which hold no text of a model
        messages = answers_of(body)
        whole = [answered(asked, message) for message in messages]
        answers = await self._service.check(whole, contract=CONTRACT, direction="response")
        return _blocked(answers) or go_on("response_body")

    async def _event(self, asked: Request, events: Events, part: Any) -> Any:
        if self._stopped:
            return go_on("response_body", b"")
        last = part.end_of_stream
        for index, text in events.feed(part.body, last=last).items():
            key = f"{self._key}/{index}"
            found = await self._service.push(key, text, asked, contract=CONTRACT)
            if found.blocked:
                return self._stop(found)
        for message in events.whole() if last else ():
            whole = [answered(asked, message)]
            (found,) = await self._service.check(whole, contract=CONTRACT, direction="response")
            if found.blocked:
                return self._stop(found)
        if self._service.mode(CONTRACT) != "enforce":
            events.release(last=True)  # it has passed
            return go_on("response_body")
        passed = events.release(last=last)
        return go_on("response_body", None if passed == part.body else passed)

    def _stop(self, found: Answer) -> Any:
        """An event with an error, in place of what was not passed on and of all that follows."""
        self._stopped = True
        return go_on("response_body", b"\ndata: " + _form(found) + b"\n\n")


def _need_at_most(most: int, body: bytes, what: str) -> None:
    if len(body) > most:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{what}: found {len(body)} bytes; expected at most {most}",
        )


def _blocked(answers: Sequence[Answer]) -> Any:
    """The answer to the client if one of the texts is blocked; None if all may pass."""
    for one in answers:
        if one.blocked:
            return answer(_FORBIDDEN, _form(one))
    return None


def _form(found: Answer) -> bytes:
    error = {"message": found.reason, "type": "guardrail", "param": None, "code": "blocked"}
    return json.dumps({"error": error}).encode()
