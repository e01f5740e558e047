"""What a chat template is given: the turns of a request, by the version of the text rules.

From version 2 on they are what transformers' ``apply_chat_template`` gives the template, so that
the guard reads the tokens that the model reads. Two things are left to the caller there and settled
here. Arguments of tool calls that come as JSON in a text, as OpenAI's interface has them, become
the object that templates iterate over. And a request whose only turn is white space of the user is
read as one space, whether it came as a text or as a chat.
"""

import json
from collections.abc import Mapping
from typing import Any

from layerguard.runtime.text.request import Message, Request, text_of

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that a turn's reasoning has, the one that templates read first."""


def chat_turns(request: Request, version: int) -> list[dict[str, Any]]:
    """The turns up to where the answer begins, each with its content as one text.

    Args:
        request: what is to be judged.
        version: of the bundle's text rules; see ``TextRules``.
    """
    if version == 1:
        turns = [{**turn, "content": text_of(turn)} for turn in request.asked]
        if request.messages is None:
            turns[0]["content"] = request.prompt.strip() or " "
        return turns
    turns = [_turn(message) for message in request.asked]
    if len(turns) == 1 and turns[0]["role"] == "user" and not turns[0].get("content", "").strip():
        turns[0]["content"] = " "
    return turns


def arguments_of(function: Mapping[str, Any]) -> Any:
    """The arguments of a tool call; JSON in a text is read, any other text stays as it is."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):  # garbled by the agent: its words, as they are
        return arguments


def _turn(message: Message) -> dict[str, Any]:
    """One turn without what is null, its reasoning under every name that a template may read."""
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
    """A tool call whose arguments are an object, where they spell one or are empty."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"])}
    arguments = {} if call.get("arguments") == "" else arguments_of(call)
    is_read = isinstance(arguments, Mapping) and _is_unicode(arguments)
    return {**call, "arguments": arguments} if is_read else call


def _is_unicode(value: Any) -> bool:
    """Whether a JSON value has no half of a surrogate pair in it, which no tokenizer reads."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
