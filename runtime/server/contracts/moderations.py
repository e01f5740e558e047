"""OpenAI's moderations: ``POST /v1/moderations``.

A client reads the 13 categories of OpenAI. The setting ``categories`` says which of them the guard
or one of its detectors decides; the others are never flagged. Beside them stand ``layerguard``, the
whole guard, and ``layerguard/<detector>``.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from layerguard.runtime.errors import LayerGuardError
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.config import WHOLE_GUARD
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
    texts,
)
from layerguard.runtime.text.request import Request, request

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
"""OpenAI's categories."""

_SERVER_ERROR = 500


async def moderate(call: Call) -> Response:
    """One result for each input."""
    body = call.object()
    model = field(body, "model", str, None)
    bundle = call.bundle(model)
    inputs = _inputs(body)
    sources = _sources(call, bundle)
    answers = await call.check(inputs, bundle=bundle)
    return json_response(
        {
            "id": f"modr-{secrets.token_hex(12)}",
            "model": model or answers[0].bundle,
            "results": [_result(answer, sources) for answer in answers],
        }
    )


def error(fault: Fault) -> Response:
    """OpenAI's error form."""
    kind = "invalid_request_error" if fault.status < _SERVER_ERROR else "server_error"
    code = HTTPStatus(fault.status).name.lower()
    form = {"message": fault.message, "type": kind, "param": None, "code": code}
    return json_response({"error": form}, fault.status)


def _inputs(body: Mapping[str, Any]) -> list[Request]:
    """One request for each text; the parts of one message, such as images, are one request."""
    value = body.get("input")
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return [request(messages=[{"role": "user", "content": value}])]
    return [request(text) for text in texts(body, "input")]


def _sources(call: Call, bundle: str | None) -> dict[str, str]:
    """The settings' categories, with the key in ``Answer.scores`` of what decides each."""
    _, guard = call.service.named(bundle or call.http.headers.get("x-layerguard-bundle"))
    known = guard.bundle.manifest.detectors
    sources = {}
    for category, source in call.service.config.contracts.categories.items():
        if source != WHOLE_GUARD and source not in known:
            raise LayerGuardError(
                f"setting categories: found {category!r} decided by {source!r}; expected "
                f"{WHOLE_GUARD!r} or a detector of the bundle: {', '.join(known)}"
            )
        sources[category] = "" if source == WHOLE_GUARD else source
    return sources


def _result(answer: Answer, sources: Mapping[str, str]) -> dict[str, Any]:
    scores = dict.fromkeys(CATEGORIES, 0.0)
    for name, score in answer.scores.items():
        scores[f"layerguard/{name}" if name else "layerguard"] = score
    scores |= {category: answer.scores.get(name, 0.0) for category, name in sources.items()}
    return {
        "flagged": answer.blocked,
        "categories": {name: score >= 0.5 for name, score in scores.items()},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in scores},
    }


CONTRACT = Contract("moderations", (Endpoint("POST", "/v1/moderations", moderate),), error)
