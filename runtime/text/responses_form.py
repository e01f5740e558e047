"""OpenAI's Responses API as a chat: items of its input and output as turns.

Items of one side that follow each other are one turn, as chat templates expect.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from layerguard.runtime.errors import InputError

Turn = dict[str, Any]

_FINISHED = ("response.completed", "response.incomplete", "response.failed")
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
"""Type of a call of a tool: its key in a chat, and the member that the tool reads."""


def is_chat(call: Mapping[str, Any]) -> bool:
    """Whether the input of a call is a chat of this interface, and not the texts of another one."""
    given = call.get("input")
    if isinstance(given, list) and any(isinstance(one, dict) for one in given):
        return True
    told = call.get("instructions") is not None or call.get("tools") is not None
    return given is not None and told


def chat_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """The ``messages`` and ``tools`` of a call.

    Raises:
        InputError: its input is neither a text nor a list of items, or it names a stored prompt.
    """
    if call.get("prompt") is not None:
        raise InputError("prompt: found a stored one, which cannot be read; send its text as input")
    given = call.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not _are_items(items):
        raise InputError("input: expected a text or a list of items")
    told = call.get("instructions")
    told = told if _are_items(told) else [{"role": "system", "content": told}] if told else []
    turns = turns_of([*told, *items])
    tools = call.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise InputError(f"tools: found {type(tools).__name__}; expected a list of objects")
    return {"messages": turns, "tools": [_tool(one) for one in tools] if tools else None}


def answer_of(body: Mapping[str, Any]) -> Turn:
    """The turn that an answer holds.

    Raises:
        InputError: it has no list of items.
    """
    items = body.get("output")
    if not _are_items(items):
        raise InputError("output: expected a list of items")
    return _joined(turns_of(items))


def answer_in(events: Sequence[Mapping[str, Any]]) -> Turn:
    """The turn that the events of a streamed answer hold.

    Text of its parts that the whole answer at their end does not repeat is read too.

    Raises:
        InputError: the last event does not hold the answer.
    """
    last = events[-1] if events else {}
    whole = last.get("response")
    if last.get("type") not in _FINISHED or not isinstance(whole, dict):
        raise InputError(f"event: found {last.get('type')!r} last; expected {_FINISHED[0]!r}")
    turn = answer_of(whole)
    said = list(_strings(turn))
    for text in _texts(events).values():
        if not any(text in one for one in said):
            turn["content"].append({"type": "text", "text": text})
    return turn


def turns_of(items: Iterable[Mapping[str, Any]]) -> list[Turn]:
    """The turns of some items. A message without a role has none here either."""
    turns: list[Turn] = []
    for item in items:
        turn = _turn(item)
        if turns and turn.get("role") == turns[-1].get("role") == "assistant":
            turn = _joined([turns.pop(), turn])
        turns.append(turn)
    return turns


def _are_items(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _turn(item: Mapping[str, Any]) -> Turn:
    kind = item.get("type", "message")
    rest = {key: value for key, value in item.items() if key not in ("type", "id", "status")}
    if kind == "message":
        return rest
    if kind in _CALLS:
        key, read = _CALLS[kind]
        called = {"name": rest.pop("name", ""), read: rest.pop(read, "")}
        call = {"id": rest.pop("call_id", ""), "type": key, key: called}
        return {"role": "assistant", "content": None, "tool_calls": [call], **rest}
    if kind in ("function_call_output", "custom_tool_call_output"):
        called_by = {"tool_call_id": rest.pop("call_id", "")}
        return {"role": "tool", "content": rest.pop("output", None), **called_by, **rest}
    if kind == "reasoning":
        parts = [*(rest.pop("summary", None) or ()), *(rest.pop("content", None) or ())]
        return {"role": "assistant", "content": [_as_text(part) for part in parts], **rest}
    return {"role": "assistant", "content": [dict(item)]}


def _joined(turns: Sequence[Turn]) -> Turn:
    """One turn of the assistant, with the parts and the calls of all."""
    whole: Turn = {"role": "assistant", "content": []}
    for turn in turns:
        content = turn.get("content") or []
        whole["content"] += content if isinstance(content, list) else [_as_part(content)]
        for key, value in turn.items():
            if key == "tool_calls":
                whole[key] = [*whole.get(key, []), *value]
            elif key not in ("role", "content"):
                whole["content"].append({key: value})
    return whole


def _as_part(content: Any) -> dict[str, Any]:
    return {"type": "text", "text": content} if isinstance(content, str) else {"content": content}


def _as_text(part: Any) -> Any:
    """A part of a reasoning, whose types chat templates do not know, as a text part."""
    text = part.get("text") if isinstance(part, dict) else None
    return {"type": "text", "text": text} if isinstance(text, str) else part


def _tool(tool: Any) -> Any:
    """A tool as a chat names it; those that no chat has stay as they are."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or "function" in tool:
        return tool
    return {
        "type": "function",
        "function": {key: value for key, value in tool.items() if key != "type"},
    }


def _texts(events: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], str]:
    """The parts of each text, put together."""
    texts: dict[tuple[Any, ...], str] = {}
    for event in events:
        part = event.get("delta")
        if isinstance(part, str):
            names = ("type", "item_id", "output_index", "content_index", "summary_index")
            place = tuple(str(event.get(name)) for name in names)
            texts[place] = texts.get(place, "") + part
    return texts


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
