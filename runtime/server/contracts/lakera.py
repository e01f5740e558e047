"""Lakera Guard's API, version 2: ``POST /v2/guard``."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
)
from layerguard.runtime.server.contracts.found import spans
from layerguard.runtime.text.request import Message, request, text_of


async def guard(call: Call) -> Response:
    """Whether a chat is flagged; on request with each detector, and with places."""
    body = call.object()
    messages = field(body, "messages", list)
    asked = request(messages=messages)
    direction = "response" if messages[-1]["role"] == "assistant" else "request"
    answer = (await call.check([asked], direction=direction))[0]
    answered: dict[str, Any] = {"flagged": answer.blocked}
    if field(body, "breakdown", bool, False):
        answered["breakdown"] = [
            {
                "detector_id": name,
                "detector_type": f"layerguard/{name}",
                "detected": score >= 0.5,
                "message_id": len(messages) - 1,
            }
            for name, score in answer.scores.items()
            if name
        ]
    if field(body, "payload", bool, False):
        answered["payload"] = _payload(answer, messages)
    return json_response(answered)


def error(fault: Fault) -> Response:
    """The error form: flagged, with the reason."""
    form = {"flagged": True, "error": {"message": fault.message, "code": fault.status}}
    return json_response(form, fault.status)


def _payload(answer: Answer, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The spans of the detectors that block, in the messages that hold their words."""
    return [
        {
            "start": start,
            "end": end,
            "text": text[start:end],
            "detector_type": f"layerguard/{name}",
            "labels": [],
            "message_id": index,
        }
        for index, text in enumerate(map(text_of, messages))
        for name, score in answer.scores.items()
        if name and score >= 0.5
        for start, end in spans(answer, name, text)
    ]


CONTRACT = Contract("lakera", (Endpoint("POST", "/v2/guard", guard),), error)
