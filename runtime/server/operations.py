"""What operators ask: ``/livez``, ``/readyz``, ``/metrics`` and ``/admin/reload``."""

import logging

from starlette.responses import PlainTextResponse, Response

from layerguard.runtime.errors import LayerGuardError
from layerguard.runtime.server.contracts import native
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    json_response,
)

_LOG = logging.getLogger("layerguard.server")


async def live(call: Call) -> Response:  # noqa: ARG001  the process answers, whatever is asked
    """200 as long as the process answers."""
    return PlainTextResponse("ok\n")


async def ready(call: Call) -> Response:
    """200 once the bundles are loaded and their canaries replayed, until the server shuts down."""
    if call.service.ready:
        return PlainTextResponse("ok\n")
    return PlainTextResponse("not ready\n", 503)


async def metrics(call: Call) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(
        call.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def reload(call: Call) -> Response:
    """Load all bundles again, and give their ids; 500 with the faults if one is not served."""
    try:
        ids = await call.service.reload()
    except LayerGuardError as error:
        message = f"not reloaded, the earlier bundles still serve: {error}"
        _LOG.error("%s", message)
        return native.error(Fault(500, message, call.http.url.path))
    return json_response({"bundles": ids})


CONTRACT = Contract(
    "operations",
    (
        Endpoint("GET", "/livez", live),
        Endpoint("GET", "/readyz", ready),
        Endpoint("GET", "/metrics", metrics),
    ),
    native.error,
)
ADMIN = Contract("admin", (Endpoint("POST", "/admin/reload", reload),), native.error)
"""Served only if the operator gave it keys."""
