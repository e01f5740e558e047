"""Portkey's webhook guardrail: ``POST /portkey``.

Portkey lets a text pass if it gets an error, unless ``failOnError`` is set. Errors are therefore
answered with 200 and a negative verdict.
"""

from starlette.responses import Response

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
    is_chat = (
        field(body, "requestType", str, "") == _CHAT
    )  # others have no messages, or unread ones
    messages = field(field(asked, "json", dict, {}), "messages", list, []) if is_chat else []
    prompt = field(asked, "text", str, "")
    if field(body, "eventType", str, "") == _AFTER:
        written = field(field(body, "response", dict), "text", str, "")
        turns = [*messages, {"role": "assistant", "content": written}]
        one = request(messages=turns) if messages else request(prompt=prompt, response=written)
        return await _verdict(call, one, "response")
    return await _verdict(
        call, request(messages=messages) if messages else request(prompt), "request"
    )


def error(fault: Fault) -> Response:
    """The error form: a negative verdict."""
    return json_response(
        {"verdict": False, "data": {"error": fault.message, "status": fault.status}}
    )


async def _verdict(call: Call, asked: Request, direction: str) -> Response:
    answer = (await call.check([asked], direction=direction))[0]
    data = {"reason": answer.reason, "score": answer.scores[""]}
    return json_response({"verdict": not answer.blocked, "data": data})


CONTRACT = Contract("portkey", (Endpoint("POST", "/portkey", webhook),), error)
