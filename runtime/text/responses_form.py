"""OpenAI's Responses API as a chat: items of its input and output as turns.

Items of one side that follow each other are one turn, as chat templates expect.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.openai_call import schemas_of, tools_of

Turn = dict[str, Any]

_FINISHED = ("response.completed", "response.incomplete", "response.failed")
_FAILED = "error"
_PLACES = ("type", "item_id", "output_index", "content_index", "summary_index")
"""Members of an event that tell which text its part belongs to."""
_SEARCHES = 1_000
"""Texts of events that are looked for within the whole answer; more are read a second time."""
_NO_TEXT = frozenset({"type", "id", "status", "role", "call_id", "item_id", "event_id",
                      "logprobs", "obfuscation", "partial_image_b64"})  # fmt: skip
"""Members of events that a client does not show."""
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
"""Type of a call of a tool: its key in a chat, and the member that the tool reads."""


def is_chat(call: Mapping[str, Any]) -> bool:
    """Whether the input of a call is a chat of this interface, and not the texts of another one."""
    given = call.get("input")
    if isinstance(given, list) and any(isinstance(one, dict) for one in given):
        return True
    told = any(call.get(name) is not None for name in ("instructions", "tools", "functions"))
    return given is not None and (told or any(schemas_of(call)))


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
    tools = tools_of(call)
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


def answer_in(events: Iterable[Mapping[str, Any]]) -> Turn:
    """The turn that the events of a streamed answer hold; see ``GrowingResponse``."""
    answer = GrowingResponse()
    for event in events:
        answer.add(event)
    return answer.turn()


class GrowingResponse:
    """A streamed answer so far: the texts of its events, and the last one."""

    def __init__(self) -> None:
        """Start empty."""
        self._deltas: dict[tuple[str, ...], list[str]] = {}
        self._texts: dict[str, None] = {}
        self._last: Mapping[str, Any] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Add an event."""
        for text in _strings(_output_of(self._last)):
            self._texts[text] = None
        self._last = event
        delta = event.get("delta")
        if isinstance(delta, str):
            place = tuple(str(event.get(name)) for name in _PLACES)
            self._deltas.setdefault(place, []).append(delta)
            event = {**event, "delta": None}
        for text in _strings({**event, "response": None}):
            self._texts[text] = None

    def turn(self) -> Turn:
        """The turn that the last event holds.

        Texts of the other events that it does not repeat are added: a client may show them.

        Raises:
            InputError: the last event neither holds the answer nor says that it failed.
        """
        kind, body = self._last.get("type"), self._last.get("response")
        if kind == _FAILED:
            body = {"output": []}
        elif kind not in _FINISHED or not isinstance(body, dict):
            raise InputError(f"event: found {kind!r} last; expected {_FINISHED[0]!r}")
        turn = answer_of(body)
        said = dict.fromkeys(_strings(turn))
        whole, searches = "\n".join(said), _SEARCHES
        for text in [*map("".join, self._deltas.values()), *self._texts]:
            if text in said:
                continue
            searches -= 1
            if searches >= 0 and text in whole:
                continue
            turn["content"].append({"type": "text", "text": text})
            said[text] = None
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
    kind = item.get("type")
    if kind is None:
        kind = "message"
    if not isinstance(kind, str):
        raise InputError(f"type of an item: found {type(kind).__name__}; expected a str")
    rest = {key: value for key, value in item.items() if key not in ("type", "id", "status")}
    if kind == "message":
        return rest
    turn: Turn
    if kind in _CALLS:
        key, read = _CALLS[kind]
        called = {"name": rest.pop("name", ""), read: rest.pop(read, "")}
        call = {"id": rest.pop("call_id", ""), "type": key, key: called}
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind in ("function_call_output", "custom_tool_call_output"):
        called_by = {"tool_call_id": rest.pop("call_id", "")}
        turn = {"role": "tool", "content": rest.pop("output", None), **called_by}
    elif kind == "reasoning":
        parts = [*_listed(rest.pop("summary", None)), *_listed(rest.pop("content", None))]
        turn = {"role": "assistant", "content": [_as_text(part) for part in parts]}
    else:
        role = "tool" if kind.endswith("_output") else "assistant"
        return {"role": role, "content": [dict(item)]}
    for name in turn.keys() & rest.keys():  # one of the two would not be read
        if rest.pop(name) not in (None, turn[name]):
            raise InputError(f"item of type {kind!r}: found {name}; expected an item without it")
    return {**turn, **rest}


def _listed(parts: Any) -> list[Any]:
    return parts if isinstance(parts, list) else [] if parts is None else [_as_part(parts)]


def _joined(turns: Sequence[Turn]) -> Turn:
    """One turn of the assistant, with the parts and the calls of all."""
    whole: Turn = {"role": "assistant", "content": []}
    for turn in turns:
        content = turn.get("content") or []
        whole["content"] += content if isinstance(content, list) else [_as_part(content)]
        for key, value in turn.items():
            if key == "tool_calls" and isinstance(value, list):
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


def _output_of(event: Mapping[str, Any]) -> Any:
    whole = event.get("response")
    return whole.get("output") if isinstance(whole, dict) else None


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, without those of ``_NO_TEXT``."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str) and value:
            yield value
        elif isinstance(value, Mapping):
            left += [item for key, item in reversed([*value.items()]) if key not in _NO_TEXT]
        elif isinstance(value, list):
            left += reversed(value)
