"""A message that a model is still writing, put together from its parts.

The parts are the deltas of OpenAI's interface: texts that follow each other, and calls of tools
whose arguments grow.
"""

from collections.abc import Mapping
from typing import Any

from layerguard.runtime.errors import InputError

_TEXTS = ("reasoning_content", "reasoning", "content", "text", "refusal")
"""Members of a message, a delta or a choice whose text a user may see."""

_SET_ONCE = ("id", "type", "index")
"""Members of a call that no tool reads."""


class GrowingMessage:
    """One message so far.

    Attributes:
        text: all of its text.
        calls: its calls of tools, by their index.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.text = ""
        self.calls: dict[int, dict[str, Any]] = {}

    def add(self, delta: Mapping[str, Any]) -> str:
        """Add a part, and return its text.

        Raises:
            InputError: the part has sound, or its texts or calls cannot be read.
        """
        for call in _calls(delta):
            index = call.get("index", 0)
            try:
                self.calls[index] = _extended(self.calls.get(index, {}), call)
            except RecursionError as error:
                raise InputError("call: found one nested too deeply; expected less") from error
        text = text_in(delta)
        self.text += text
        return text

    def message(self) -> dict[str, Any]:
        """The message so far, with ``content`` and, if there are some, ``tool_calls``."""
        calls = {"tool_calls": list(self.calls.values())} if self.calls else {}
        return {"content": self.text, **calls}


def parts_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a choice and those of its message or delta, side by side.

    Raises:
        InputError: its message or its delta is no object.
    """
    inner: list[Any] = [choice.get(name) or {} for name in ("message", "delta")]
    if not all(isinstance(one, dict) for one in inner):
        raise InputError("choice: found a message that is no object; expected one")
    return {**choice, **inner[0], **inner[1]}


def text_in(part: Mapping[str, Any]) -> str:
    """All text of a message, a delta or a choice; see ``parts_of``.

    Raises:
        InputError: it has sound, or a text is not a str.
    """
    if part.get("audio"):
        raise InputError("found an answer with sound; expected only text: a guard cannot hear it")
    texts = [part[name] for name in _TEXTS if part.get(name)]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("found an answer whose text is not a str")
    return "\n".join(texts)


def _calls(delta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of calls in a delta; a legacy function call counts as one."""
    legacy = delta.get("function_call")
    calls = delta.get("tool_calls") or []
    if not isinstance(calls, list) or not all(_is_call(one) for one in calls):
        raise InputError("tool_calls: found no list of objects; expected one")
    return [*calls, *([{"function": legacy}] if legacy else ())]


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("index", 0), int)


def _extended(whole: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A call with a part more: texts and lists grow. Some servers repeat the name in every part.

    Raises:
        InputError: a member is of two kinds.
    """
    found = dict(whole)
    for key, value in part.items():
        earlier = whole.get(key)
        if earlier is None:
            found[key] = value
        elif value is None or (key in _SET_ONCE and not isinstance(value, dict | list)):
            continue
        elif type(earlier) is not type(value):
            raise InputError(f"call: found {key[:40]!r} of two kinds; expected one")
        elif isinstance(value, dict):
            found[key] = _extended(earlier, value)
        elif isinstance(value, str | list) and (key != "name" or value != earlier):
            found[key] = earlier + value
    return found
