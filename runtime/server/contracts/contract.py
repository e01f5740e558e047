"""What a contract is: endpoints, and the form of its errors.

A module of a contract turns the JSON of its clients into requests, asks ``call.check`` or
``call.push``, and turns the answers back. Everything else is the same for all contracts and is done
before and after: keys, limits, deadlines, disconnected clients, request ids, errors, metrics.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.request import Request


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call has no answer.

    Attributes:
        status: the HTTP status: 400, 401, 408, 413 or 415 for a wrong call; 503 if the guard cannot
            answer now; 500 if it failed.
        message: one sentence.
        path: the path that was called.
    """

    status: int
    message: str
    path: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint.

    Attributes:
        service: what answers; most contracts need only ``check`` and ``push``.
        contract: name of the contract.
        http: the HTTP request or WebSocket: ``http.headers``, ``http.path_params``.
        body: the request's body; empty for an endpoint that reads ``chunks`` itself.
    """

    service: Service
    contract: str
    http: HTTPConnection
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            InputError: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise InputError(f"body: found no JSON ({error}); expected an object") from error

    def object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            InputError: it is not one.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise InputError(f"body: found {type(value).__name__}; expected an object")
        return value

    async def check(self, requests: Sequence[Request], **arguments: Any) -> list[Answer]:
        """The answers to some requests; see ``Service.check``."""
        return await self.service.check(requests, contract=self.contract, **self._with(arguments))

    async def push(self, key: str, text: str, **arguments: Any) -> Answer:
        """The answer to a growing text; see ``Service.push``."""
        return await self.service.push(key, text, contract=self.contract, **self._with(arguments))

    def bundle(self, name: str | None) -> str | None:
        """The name, if a bundle has it; a client may send the name of a model instead."""
        return name if name in self.service.guards else None

    def _with(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the bundle and domain that the gateway's headers name."""
        for name in ("bundle", "domain"):
            if arguments.get(name) is None:
                arguments[name] = self.http.headers.get(f"x-layerguard-{name}")
        return arguments

    @property
    def request(self) -> HttpRequest:
        """The HTTP request of a call that is not a WebSocket's."""
        assert isinstance(self.http, HttpRequest)
        return self.http

    def chunks(self) -> AsyncIterator[bytes]:
        """The parts of the body as they arrive."""
        return self.request.stream()


Handler = Callable[[Call], Awaitable[Response]]
"""Answers a call. It may raise any error; see ``Contract.error``."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: ``GET`` or ``POST``.
        path: as in Starlette, ``/v2/models/{model}/infer``.
        handler: answers its calls.
        streams: whether the handler reads the body itself, while it arrives.
        operation: its OpenAPI operation, whose faults are added; None: it is not described.
        call_id: field of the JSON body with the id of a call, by which the service keeps a growing
            answer between requests; empty if it keeps none.
    """

    method: str
    path: str
    handler: Handler
    streams: bool = False
    operation: Mapping[str, Any] | None = None
    call_id: str = ""


Conversation = Callable[[Call, AsyncIterator[dict[str, Any]]], AsyncGenerator[dict[str, Any], None]]
"""Answers the objects of a client, each once it has arrived, with objects."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One endpoint for WebSockets; its messages are JSON objects.

    Attributes:
        path: as of an ``Endpoint``.
        converse: answers the messages.
    """

    path: str
    converse: Conversation


@dataclass(frozen=True, slots=True)
class Contract:
    """One HTTP contract.

    Attributes:
        name: for the operator's modes and the metrics.
        endpoints: its endpoints.
        error: the response for a call without an answer; the server adds ``Retry-After``.
        sockets: its endpoints for WebSockets.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    error: Callable[[Fault], Response]
    sockets: tuple[Socket, ...] = ()


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response; in ASCII, so that any text that a client sent can be quoted in it."""
    return Response(_written(content), status, headers, "application/json")


_written = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def field(table: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """A value of a JSON object; null counts as absent.

    Args:
        table: the object.
        name: its key.
        kind: the type that is expected.
        default: for an absent value; without one it must be there.

    Raises:
        InputError: it has another type, or is absent.
    """
    value = table.get(name)
    if value is None and default is not ...:
        return default
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON has one type of numbers
    is_flag = isinstance(value, bool) and kind is not bool
    if is_flag or not isinstance(value, (int, float) if kind is float else kind):
        words = {str: "a text", dict: "an object", list: "a list", bool: "true or false"}
        found = "nothing" if value is None else type(value).__name__
        raise InputError(f"{name}: found {found}; expected {words.get(kind, 'a number')}")
    return value


def texts(table: Mapping[str, Any], name: str) -> list[str]:
    """A text or a list of texts, as a list that is not empty.

    Raises:
        InputError: it is neither.
    """
    value = table.get(name)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise InputError(f"{name}: found {_shape(value)}; expected a text or a list of texts")
    return found


def _shape(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value!r}"[:60] if isinstance(value, list) else type(value).__name__
