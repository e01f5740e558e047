"""Portkey's webhook guardrail: ``POST /portkey``.

Portkey lets a text pass if it gets an error, unless ``failOnError`` is set. Errors are therefore
answered with 200 and a negative verdict.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from layerguard.runtime.server.answered import answered, holds_more
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
)
from layerguard.runtime.text.request import Request, request

_AFTER = "afterRequestHook"
_CHAT = "chatComplete"


async def webhook(call: Call) -> Response:
    """The verdict on a request, or on the answer to it."""
    body = call.object()
    asked = field(body, "request", dict)
    is_chat = field(body, "requestType", str, "") == _CHAT  # others have no messages
    messages = field(field(asked, "json", dict, {}), "messages", list, []) if is_chat else []
    prompt = field(asked, "text", str, "")
    one = request(messages=messages) if messages else request(prompt)
    if field(body, "eventType", str, "") != _AFTER:
        return await _verdict(call, [one], "request")
    written = _written(field(body, "response", dict))
    return await _verdict(call, [answered(one, message) for message in written], "response")


def error(fault: Fault) -> Response:
    """The error form: a negative verdict."""
    return json_response(
        {"verdict": False, "data": {"error": fault.message, "status": fault.status}}
    )


def _written(response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The text of an answer, and its messages that hold more, such as calls of tools."""
    choices = field(field(response, "json", dict, {}), "choices", list, [])
    messages = [one.get("message") for one in choices if isinstance(one, dict)]
    more = [one for one in messages if isinstance(one, dict) and holds_more(one)]
    return [{"content": field(response, "text", str, "")}, *more]


async def _verdict(call: Call, asked: Sequence[Request], direction: str) -> Response:
    answers = await call.check(asked, direction=direction)
    answer = next((one for one in answers if one.blocked), answers[0])
    data = {"reason": answer.reason, "score": answer.scores[""]}
    return json_response({"verdict": not answer.blocked, "data": data})


CONTRACT = Contract("portkey", (Endpoint("POST", "/portkey", webhook),), error)
