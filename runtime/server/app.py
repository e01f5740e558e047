"""The ASGI application: the endpoints of all contracts, and those that operators need."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from layerguard.runtime.server import operations
from layerguard.runtime.server.contracts import CONTRACTS, duplicates, native
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
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

_LOG = logging.getLogger("layerguard.server")
_Endpoint = Callable[[HttpRequest], Awaitable[Response]]
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
    by_path = {
        (one.method, one.path): _endpoint(service, contract, one, needed)
        for contract, needed in served
        for one in contract.endpoints
    }
    return _routed(by_path)


def _routed(by_path: Mapping[tuple[str, str], _Endpoint]) -> ASGIApp:
    """The application of some endpoints, by method and path.

    A path without parameters is looked up, and does without Starlette's middleware: an endpoint
    raises nothing that it would turn into a response.
    """
    whole = {key: one for key, one in by_path.items() if "{" not in key[1]}
    others = Starlette(
        routes=[Route(path, one, methods=[method]) for (method, path), one in by_path.items()],
        exception_handlers={HTTPException: _no_endpoint},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        one = whole.get((scope.get("method", ""), scope.get("path", "")))
        if one is None:
            await others(scope, receive, send)
            return
        response = await one(HttpRequest(scope, receive, send))
        await response(scope, receive, send)

    return app


def _described(contracts: Sequence[Contract]) -> Contract:
    """The OpenAPI document of some contracts, as a contract."""

    async def describe(call: Call) -> Response:
        return json_response(document(contracts, call.service.guards))

    return Contract("openapi", (Endpoint("GET", "/openapi.json", describe),), native.error)


def _endpoint(service: Service, contract: Contract, endpoint: Endpoint, keys: Keys) -> _Endpoint:
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


def _failed(contract: Contract, request: HttpRequest, name: str, error: Exception) -> Response:
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
