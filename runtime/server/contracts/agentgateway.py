"""agentgateway's webhook: ``POST /request`` and ``POST /response``, in both of its formats.

agentgateway reads the answer whatever its HTTP status is. In the raw format only an answer that it
refuses, an empty list of messages, rejects a request; it then acts by its ``failureMode``. Each
answer has the keys of both formats, of which agentgateway reads those of its own.
"""

from collections.abc import Sequence

from starlette.responses import Response

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.answered import answered
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
)
from layerguard.runtime.text.request import request

_FORBIDDEN = 403


async def before(call: Call) -> Response:
    """Whether a chat may go to the model."""
    body = call.object()
    messages = field(field(body, "body", dict, body), "messages", list)
    return _action(await call.check([request(messages=messages)]))


async def after(call: Call) -> Response:
    """Whether the choices of an answer may go to the client."""
    choices = field(field(call.object(), "body", dict), "choices", list)
    requests = []
    for index, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise InputError(f"choices[{index}]: found no message; expected an object with one")
        requests.append(answered(None, message))
    return _action(await call.check(requests, direction="response"))


def error(fault: Fault) -> Response:
    """The error form: a rejection."""
    return _reject(fault.message, fault.status, fault.status)


def _action(answers: Sequence[Answer]) -> Response:
    for answer in answers:
        if answer.blocked:
            return _reject(answer.reason, _FORBIDDEN)
    reason = answers[0].reason if answers else "there is no text"
    return json_response({"action": {"reason": reason}, "messages": None})


def _reject(reason: str, code: int, status: int = 200) -> Response:
    action = {"body": reason, "status_code": code, "reason": reason}
    return json_response({"action": action, "messages": []}, status)


CONTRACT = Contract(
    "agentgateway",
    (Endpoint("POST", "/request", before), Endpoint("POST", "/response", after)),
    error,
)
