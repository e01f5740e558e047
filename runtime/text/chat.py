"""The turns of a request in the form that a chat template takes, by version of the text rules.

From version 2 on they equal what transformers' ``apply_chat_template`` passes to the template, so
the guard reads the same tokens as the model. There are two additions. If the arguments of a tool
call are a JSON string, as in OpenAI's interface, they become the object that templates iterate
over. If the only turn of a request is white space from the user, it is read as one space, for a
text and for a chat.
"""

import json
from collections.abc import Mapping
from typing import Any

from layerguard.runtime.text.request import Message, Request, text_of

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys under which a turn's reasoning is stored; the key that templates read comes first."""


def chat_turns(request: Request, version: int) -> list[dict[str, Any]]:
    """The turns before the answer, each with its content as one text.

    Args:
        request: the request to check.
        version: version of the bundle's text rules; see ``TextRules``.
    """
    if version == 1:
        turns = [{**turn, "content": text_of(turn)} for turn in request.prompt_turns]
        if request.messages is None:
            turns[0]["content"] = request.prompt.strip() or " "
        return turns
    turns = [_turn(message) for message in request.prompt_turns]
    if len(turns) == 1 and turns[0]["role"] == "user" and not turns[0].get("content", "").strip():
        turns[0]["content"] = " "
    return turns


def arguments_of(function: Mapping[str, Any]) -> Any:
    """The arguments of a tool call. A JSON string is parsed; any other string is kept."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):  # malformed arguments are kept as text
        return arguments


def _turn(message: Message) -> dict[str, Any]:
    """One turn without null values, with its reasoning under every key that templates read."""
    turn = {key: value for key, value in message.items() if value is not None}
    if "content" in turn:
        turn["content"] = text_of(message)
    reasoning = next((turn[name] for name in _REASONING if name in turn), None)
    if reasoning is not None:
        turn = {"thinking": reasoning, **turn, "reasoning_content": reasoning}
    calls = turn.get("tool_calls")
    if isinstance(calls, (list, tuple)):
        turn["tool_calls"] = [_call(call) for call in calls]
    return turn


def _call(call: Any) -> Any:
    """A tool call with its arguments parsed into an object, if they are one or are empty."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"])}
    arguments = {} if call.get("arguments") == "" else arguments_of(call)
    is_read = isinstance(arguments, Mapping) and _is_unicode(arguments)
    return {**call, "arguments": arguments} if is_read else call


def _is_unicode(value: Any) -> bool:
    """Whether a JSON value has no lone surrogate, which tokenizers cannot read."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
