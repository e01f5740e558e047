"""The strings of a request: the text of its turns, and everything beside it.

``text_of`` (``request.py``) gives the text of a turn: its content, or its text parts. A chat may
hold more: documents, results and calls of tools, refusals, names, keys that no interface defines.
All of it is read too, except what is not text. Signatures and encrypted reasoning (``opaque.py``)
are passed over: no model reads them as they stand.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from layerguard.runtime.text.opaque import opaque_key

Path = str
"""Such as ``messages[3].content[1]``."""

TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of text parts in OpenAI's interfaces."""


class Leaf(NamedTuple):
    """One string of a request.

    Attributes:
        path: where it is. Of a part that is not text: where the part is.
        text: the string; None if it is not text.
        is_plain: whether it belongs to the text of its turn.
    """

    path: Path
    text: str | None
    is_plain: bool = False


_ROLES = frozenset(
    {"system", "developer", "user", "human", "assistant", "model", "gpt", "ai", "bot", "tool",
     "function", "ipython", "environment"}
)  # fmt: skip

_NOT_TEXT = frozenset(
    {"image", "image_url", "image_file", "input_image", "audio", "audio_url", "input_audio",
     "video", "video_url", "input_video", "file", "input_file", "file_id", "file_url", "file_data",
     "base64", "url", "inline_data", "media"}
)  # fmt: skip
"""Types and keys of parts whose content is data, or is stored elsewhere."""

_WORDS = _ROLES | _NOT_TEXT | frozenset(
    {"$defs", "$ref", "$schema", "additionalProperties", "allOf", "annotations", "anyOf",
     "arguments", "array", "boolean", "cache_control", "call_id", "citations", "const", "content",
     "context", "data", "default", "description", "detail", "document", "encrypted_content", "enum",
     "ephemeral", "error", "filename", "format", "function_call", "id", "index", "input", "integer",
     "is_error", "items", "media_type", "mime_type", "name", "null", "number", "object", "oneOf",
     "output", "parameters", "pattern", "properties", "prototype", "reasoning",
     "reasoning_content", "redacted_thinking", "refusal", "required", "role", "signature", "source",
     "status", "strict", "string", "summary", "text", "thinking", "thinking_blocks", "title",
     "tool_call", "tool_call_id", "tool_calls", "tool_result",
     "tool_use", "tool_use_id", "type", *TEXT_PARTS}
)  # fmt: skip
"""The words of the interfaces and of JSON Schema. As keys and types they are no text of a chat."""

_ENCODED = re.compile(r"data:[^\s]{0,100};base64,|[A-Za-z0-9+/_=-]{512,}\Z")


def leaves(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Iterator[Leaf]:
    """All strings of a chat in their order, without blank ones."""
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        for key, value in message.items():
            if key == "role":
                yield from () if value.lower() in _ROLES else _inside(f"{path}.role", value)
            elif key == "content":
                yield from _content(f"{path}.content", value)
            elif key in _NOT_TEXT:
                yield Leaf(f"{path}.{key}", None)
                yield from _entry(path, key, value, f"{path}.{key}")
            else:
                yield from _entry(path, key, value)
    for i, tool in enumerate(tools):
        yield from _inside(f"tools[{i}]", tool)


def _content(path: Path, content: Any) -> Iterator[Leaf]:
    """The strings of a turn's content, which is a text or a list of parts."""
    if isinstance(content, str):
        yield Leaf(path, content, is_plain=True)
        return
    for i, part in enumerate(content or ()):
        here = f"{path}[{i}]"
        if not is_text_part(part):
            yield from _inside(here, part, here)
            continue
        yield Leaf(here, part["text"], is_plain=True)
        beside = {key: value for key, value in part.items() if key != "text"}
        if _holds_data(beside):
            yield Leaf(here, None)
        yield from _inside(here, beside)


def is_text_part(part: Mapping[str, Any]) -> bool:
    """Whether a part of a content belongs to the text of its turn."""
    return part.get("type", "text") in TEXT_PARTS and isinstance(part.get("text"), str)


def _inside(path: Path, value: Any, part: Path | None = None) -> Iterator[Leaf]:
    """The strings inside a value; ``part`` is the content's part that it belongs to, if any."""
    if isinstance(value, str):
        if _ENCODED.match(value):
            yield Leaf(part or path, None)
        elif value.strip():
            yield Leaf(path, value)
    elif isinstance(value, Mapping):
        yield from _object(path, value, part)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            here = f"{path}[{i}]"
            yield from _inside(here, item, here if part and isinstance(item, Mapping) else part)
    elif not (value is None or isinstance(value, (bool, int, float))):
        yield Leaf(part or path, None)


def _object(path: Path, value: Mapping[str, Any], part: Path | None) -> Iterator[Leaf]:
    opaque = opaque_key(value)
    encrypted = value.get("type") == "redacted_thinking" and opaque is None
    if encrypted or (part is not None and _holds_data(value)):
        yield Leaf(part or path, None)
    for key, item in value.items():
        if key != opaque:
            yield from _entry(path, key, item, part)


def _entry(path: Path, key: str, value: Any, part: Path | None = None) -> Iterator[Leaf]:
    """The strings of one key of an object."""
    below = (
        f"{path}.{key}" if key.isidentifier() and len(key) < _LONG else f"{path}[{key[:_LONG]!a}]"
    )
    if key not in _WORDS:
        yield from _inside(below, key)
    if key == "type" and isinstance(value, str) and value in _WORDS:
        return
    if key == "arguments" and isinstance(value, str):
        value = _unescaped(value)
    yield from _inside(below, value, part)


_LONG = 40


def _unescaped(arguments: str) -> str:
    """The arguments of a tool call; if they spell characters by number, with those characters."""
    if "\\u" not in arguments:
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    spelled = json.dumps(value, ensure_ascii=False)
    return f"{arguments}\n{spelled.encode(errors='replace').decode()}"


def not_written(found: Iterable[Leaf], view: str) -> Iterator[Leaf]:
    """The strings that a view's text does not contain, neither as they are nor as in JSON.

    They are looked for in the order in which templates write them, so that the view is read about
    once.
    """
    place = 0
    for leaf in found:
        if leaf.text is None:
            yield leaf
            continue
        core = leaf.text.strip()
        spellings = dict.fromkeys(
            [core, *(json.dumps(core, ensure_ascii=only)[1:-1] for only in (False, True))]
        )
        for spelling in spellings:
            here = view.find(spelling, place)
            here = here if here >= 0 else view.find(spelling)
            if here >= 0:
                place = here
                break
        else:
            yield leaf


def _holds_data(value: Mapping[str, Any]) -> bool:
    kind = value.get("type")
    return (isinstance(kind, str) and kind in _NOT_TEXT) or not _NOT_TEXT.isdisjoint(value)
