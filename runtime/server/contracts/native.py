"""LayerGuard's own contract: ``/v1/check`` and ``/v1/bundles``.

The body of ``/v1/check`` is one request, ``{"text"}``, ``{"prompt", "response"?}`` or
``{"messages", "tools"?}``, or many: ``{"requests": [...]}``. Beside them it may have a ``domain``,
a ``bundle`` and a ``deadline_ms``.
"""

from collections.abc import Collection, Mapping
from typing import Any

from starlette.responses import Response

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.contracts import native_schema
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
)
from layerguard.runtime.text.request import Request, request

_REQUEST = ("text", "prompt", "response", "messages", "tools")
_CHECK = ("requests", "domain", "bundle", "deadline_ms")


async def check(call: Call) -> Response:
    """The verdict on one request, or a list of verdicts."""
    body = call.object()
    known(body, (*_REQUEST, *_CHECK))
    many = field(body, "requests", list, None)
    if many is not None and (not many or any(name in body for name in _REQUEST)):
        raise InputError("requests: expected at least one, and no other request beside them")
    milliseconds = field(body, "deadline_ms", float, None)
    if milliseconds is not None and not milliseconds > 0:
        raise InputError(f"deadline_ms: found {milliseconds}; expected more than 0")
    answers = await call.check(
        [parsed(body)] if many is None else [_item(i, item) for i, item in enumerate(many)],
        domain=field(body, "domain", str, None),
        bundle=field(body, "bundle", str, None),
        deadline_s=None if milliseconds is None else milliseconds / 1e3,
    )
    verdicts = [answer.to_json() for answer in answers]
    return json_response(verdicts[0] if many is None else {"results": verdicts})


async def bundles(call: Call) -> Response:
    """The bundles that serve, the first one first."""
    listed = []
    for name, guard in call.service.guards.items():
        manifest, decision = guard.bundle.manifest, guard.decision
        modes = call.service.config.guard.detector_modes
        detectors = {
            detector: {
                "threshold": card.threshold,
                "target_fpr": card.target_fpr,
                "mode": modes.get(detector, "shadow" if detector in decision.shadow else "enforce"),
            }
            for detector, card in manifest.detectors.items()
        }
        listed.append(
            {
                "name": name,
                "id": guard.bundle.id,
                "model": manifest.model.id,
                "device": guard.backbone.session.device,
                "policy": decision.policy,
                "domains": [domain for domain in decision.limits if domain is not None],
                "detectors": detectors,
                "streams": guard.streams.rescoring or "token by token",
            }
        )
    return json_response({"bundles": listed})


def parsed(table: Mapping[str, Any]) -> Request:
    """The request of a JSON object.

    Raises:
        InputError: see ``request``.
    """
    return request(**{name: table[name] for name in _REQUEST if table.get(name) is not None})


def known(table: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse keys that have no meaning: a misspelled one would be ignored.

    Raises:
        InputError: there are any.
    """
    strange = [name for name in table if name not in names]
    if strange:
        raise InputError(f"found {strange[0][:60]!r}; expected only {', '.join(names)}")


def error(fault: Fault) -> Response:
    """The error form: ``{"error": {"message", "status"}}``."""
    return json_response(
        {"error": {"message": fault.message, "status": fault.status}}, fault.status
    )


def _item(index: int, item: Any) -> Request:
    if not isinstance(item, dict):
        raise InputError(f"requests[{index}]: found {type(item).__name__}; expected an object")
    try:
        known(item, _REQUEST)
        return parsed(item)
    except InputError as fault:
        raise InputError(f"requests[{index}]: {fault}") from fault


CONTRACT = Contract(
    "native",
    (
        Endpoint("POST", "/v1/check", check, operation=native_schema.CHECK),
        Endpoint("GET", "/v1/bundles", bundles, operation=native_schema.BUNDLES),
    ),
    error,
)
