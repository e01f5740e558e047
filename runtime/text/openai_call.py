"""Bodies of OpenAI's interfaces as JSON, and the tools of a call."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from layerguard.runtime.errors import InputError

_READ = frozenset(
    {"messages", "prompt", "suffix", "input", "instructions", "tools", "functions", "text",
     "response_format", "background", "choices", "output", "response", "error"}
)  # fmt: skip
"""Members of a body that are read."""


def read_object(body: bytes, what: str) -> dict[str, Any]:
    """A body as a JSON object.

    JSON readers differ in which one of two equal keys counts, and some take ``Messages`` for
    ``messages``; both are refused.

    Raises:
        InputError: it is none, or has such a key; the message calls it ``what``.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not JSON: {error}; expected an object") from error
    if not isinstance(value, dict):
        raise InputError(f"{what}: found {type(value).__name__}; expected an object")
    for key in value:
        if key not in _READ and key.casefold() in _READ:
            raise InputError(f"{what}: found the key {key!a}; expected {key.casefold()!r}")
    return value


def need_answer_now(call: Mapping[str, Any]) -> None:
    """Refuse a call of the Responses API whose answer is fetched later, with another call.

    Raises:
        InputError: it is one.
    """
    if call.get("background"):
        raise InputError("background: found true; an answer that is fetched later passes unread")


def tools_of(call: Mapping[str, Any]) -> list[Any] | None:
    """The tools of a call; its functions and the schema of its answer are tools too.

    Raises:
        InputError: its tools or its functions are no list.
    """
    found: dict[str, list[Any]] = {}
    for name in ("tools", "functions"):
        value = call.get(name)
        if not isinstance(value, list | None):
            raise InputError(f"{name}: found {type(value).__name__}; expected a list of objects")
        found[name] = value or []
    functions = [*found["functions"], *schemas_of(call)]
    tools = [*found["tools"], *({"type": "function", "function": one} for one in functions)]
    return tools or None


def schemas_of(call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the answer shall look like, if a call says it: models read names and descriptions."""
    text = call.get("text")
    for form in (
        call.get("response_format"),
        text.get("format") if isinstance(text, dict) else None,
    ):
        if isinstance(form, dict) and form.keys() - {"type"}:
            yield {"name": "response_format", "parameters": form}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found
