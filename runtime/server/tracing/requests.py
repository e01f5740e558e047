"""The span of each request, around the application of a route."""

from http import HTTPStatus

from opentelemetry.trace import StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerguard.runtime.server.tracing import names
from layerguard.runtime.server.tracing.spans import Traces

_STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")


class RequestSpans:
    """An ASGI application within another one: everything it does belongs to the request's span."""

    def __init__(self, app: ASGIApp, traces: Traces, route: str) -> None:
        self._app, self._traces, self._route = app, traces, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within a span, which gets the status; a WebSocket's is 101."""
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        with self._traces.request(scope.get("method", "GET"), self._route, headers) as span:

            async def noting(message: Message) -> None:
                if message["type"] in _STARTS:
                    status = message.get("status", int(HTTPStatus.SWITCHING_PROTOCOLS))
                    span.set_attribute(names.STATUS, status)
                    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        span.set_attribute(names.ERROR, str(status))
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, noting)
