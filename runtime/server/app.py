"""The ASGI application: the endpoints of all contracts, and those that operators need."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from layerguard.runtime.server import operations
from layerguard.runtime.server.contracts import CONTRACTS, duplicates, native
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    Socket,
    json_response,
)
from layerguard.runtime.server.errors import (
    RETRY_AFTER_S,
    RefusedError,
    UnavailableError,
    status_of,
)
from layerguard.runtime.server.http import Keys, read_body, request_id, while_connected
from layerguard.runtime.server.openapi import document
from layerguard.runtime.server.page import endpoints
from layerguard.runtime.server.records import REQUEST_ID
from layerguard.runtime.server.service import Service
from layerguard.runtime.server.sockets import converse, need_same_origin

_LOG = logging.getLogger("layerguard.server")
_NEVER_SENT = 499
"""Status of a response to a client that is gone."""


def create_app(service: Service, contracts: Sequence[Contract] = CONTRACTS) -> ASGIApp:
    """The application of a service.

    Args:
        service: what answers.
        contracts: what it speaks.

    Raises:
        InputError: a file of keys cannot be read.
        ValueError: two contracts have the same name or endpoint.
    """
    own = (operations.CONTRACT, _described(contracts))
    page = (endpoints.FILES, endpoints.FIGURES)
    twice = duplicates((*contracts, *own, operations.ADMIN, *page))
    if twice:
        raise ValueError(f"found {', '.join(twice)} twice; expected each contract's own")
    http = service.config.http
    keys, admin = Keys.read(http.keys_file), Keys.read(http.admin_keys_file)
    served = [(contract, keys) for contract in contracts]
    served += [(contract, Keys()) for contract in own]
    if http.page == "on":
        served += [(endpoints.FILES, Keys()), (endpoints.FIGURES, keys)]
    if admin:
        served.append((operations.ADMIN, admin))
    whole: dict[tuple[str, str], ASGIApp] = {}
    routes: list[BaseRoute] = []
    for contract, needed in served:
        traced = partial(_spans, service, contract in contracts)
        for one in contract.endpoints:
            answer = _endpoint(service, contract, one, needed)
            route = Route(one.path, answer, methods=[one.method], middleware=traced(one.path))
            routes.append(route)
            if "{" not in one.path:
                whole[one.method, one.path] = route.app
        routes += [
            WebSocketRoute(
                one.path, _socket(service, contract, one, needed), middleware=traced(one.path)
            )
            for one in contract.sockets
        ]
    return _routed(whole, routes)


def _routed(whole: Mapping[tuple[str, str], ASGIApp], routes: Sequence[BaseRoute]) -> ASGIApp:
    """The application of some routes.

    Those in ``whole``, by method and path, are looked up, and do without Starlette's middleware: an
    endpoint raises nothing that it would turn into a response.
    """
    others = Starlette(routes=routes, exception_handlers={HTTPException: _no_endpoint})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        one = whole.get((scope.get("method", ""), scope.get("path", "")), others)
        await one(scope, receive, send)

    return app


def _described(contracts: Sequence[Contract]) -> Contract:
    """The OpenAPI document of some contracts, as a contract."""

    async def describe(call: Call) -> Response:
        return json_response(document(contracts, call.service.guards))

    return Contract("openapi", (Endpoint("GET", "/openapi.json", describe),), native.error)


def _spans(service: Service, answers: bool, path: str) -> list[Middleware]:
    """What makes a span of each request, if the operator wants any; not of probes and the page."""
    if service.traces is None or not answers:
        return []
    from layerguard.runtime.server.tracing.requests import RequestSpans  # noqa: PLC0415  an extra

    return [Middleware(RequestSpans, service.traces, path)]


def _endpoint(
    service: Service, contract: Contract, endpoint: Endpoint, keys: Keys
) -> Callable[[HttpRequest], Awaitable[Response]]:
    http = service.config.http

    async def answer(request: HttpRequest) -> Response:
        keys.need(request)
        if endpoint.streams:
            return await endpoint.handler(Call(service, contract.name, request))
        body = await read_body(request, http.body_bytes, http.read_s)
        return await while_connected(
            request, endpoint.handler(Call(service, contract.name, request, body))
        )

    async def respond(request: HttpRequest) -> Response:
        name = request_id(request)
        REQUEST_ID.set(name)
        try:
            response = await answer(request)
        except ClientDisconnect:
            return Response(status_code=_NEVER_SENT)
        except Exception as error:  # noqa: BLE001  every error has the contract's form
            response = _failed(contract, request, name, error)
            if endpoint.streams or isinstance(error, RefusedError):
                response.headers["connection"] = "close"  # the rest of the body is not read
        response.headers["x-request-id"] = name
        return response

    return respond


def _socket(
    service: Service, contract: Contract, socket: Socket, keys: Keys
) -> Callable[[WebSocket], Awaitable[None]]:
    async def respond(websocket: WebSocket) -> None:
        name = request_id(websocket)
        REQUEST_ID.set(name)
        try:
            need_same_origin(websocket)
            keys.need(websocket)
            service.named()
        except Exception as error:  # noqa: BLE001  every error has the contract's form
            response = _failed(contract, websocket, name, error)
            response.headers["x-request-id"] = name
            await websocket.send_denial_response(response)
            return
        await websocket.accept(headers=[(b"x-request-id", name.encode())])
        await converse(websocket, socket, Call(service, contract.name, websocket))

    return respond


def _failed(contract: Contract, request: HTTPConnection, name: str, error: Exception) -> Response:
    """The contract's response to an error."""
    status, message = status_of(error), str(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("request %s failed", name, exc_info=error)
        message = f"the guard failed; its log has the reason, under request {name}"
    response = contract.error(Fault(int(status), message, request.url.path))
    if isinstance(error, UnavailableError):
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


async def _no_endpoint(request: HttpRequest, error: Any) -> Response:
    """The response for a path or method that does not exist."""
    status = int(error.status_code)
    message = f"{request.method} {request.url.path[:200]}: {HTTPStatus(status).phrase.lower()}"
    response = native.error(Fault(status, message, request.url.path))
    response.headers.update(error.headers or {})
    return response
