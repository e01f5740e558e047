"""LiteLLM's generic guardrail API: ``POST /beta/litellm_basic_guardrail_api``.

LiteLLM asks about a request, and about its answer: once, or every few chunks with all of the text
so far. The two have the same ``litellm_call_id``, by which an answer is read together with its
request, and only what is new in it is read.
"""

from collections.abc import Mapping
from typing import Any

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
from layerguard.runtime.text.request import Request, request, text_of

_CALL_ID = "litellm_call_id"


async def guard(call: Call) -> Response:
    """``BLOCKED`` with its reason, or ``NONE``."""
    body = call.object()
    kind = field(body, "input_type", str)
    if field(body, "images", list, []):
        raise InputError("images: found some; expected only text, a guard cannot read images")
    if kind == "request":
        key = field(body, _CALL_ID, str, None)
        answers = await call.check(_requests(body), key=key)
    elif kind == "response":
        answers = await _answers(call, body)
    else:
        raise InputError(f"input_type: found {kind[:40]!r}; expected 'request' or 'response'")
    for answer in answers:
        if answer.blocked:
            return json_response(_blocked(answer.reason))
    return json_response({"action": "NONE"})


def error(fault: Fault) -> Response:
    """The error form: a block with the fault's status, which LiteLLM reads first."""
    return json_response(_blocked(fault.message), fault.status)


def _requests(body: Mapping[str, Any]) -> list[Request]:
    """The chat, which is last, and each text that is not in it: all texts of an embedding."""
    messages = field(body, "structured_messages", list, [])
    chats = [request(messages=messages, tools=body.get("tools") or None)] if messages else []
    in_chat = "\n".join(map(text_of, messages))
    texts = [request(text) for text in field(body, "texts", list, [])]
    return [one for one in texts if not messages or one.prompt not in in_chat] + chats


async def _answers(call: Call, body: Mapping[str, Any]) -> list[Answer]:
    """The answer so far of each choice; several in turn, each from its beginning."""
    texts = field(body, "texts", list, [])
    called = field(body, "tool_calls", list, [])
    key = field(body, _CALL_ID, str, None)
    whole = [answered(None, {"tool_calls": called})] if called else []
    if key is None:
        return await call.check([*whole, *map(request, texts)], direction="response")
    answers = await call.check(whole, direction="response")
    return answers + [await call.push(key, text) for text in texts]


def _blocked(reason: str) -> dict[str, str]:
    return {"action": "BLOCKED", "blocked_reason": reason}


CONTRACT = Contract(
    "litellm",
    (Endpoint("POST", "/beta/litellm_basic_guardrail_api", guard, call_id=_CALL_ID),),
    error,
)
