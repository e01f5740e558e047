"""Calls and answers of OpenAI's interface, as they pass through a proxy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of, text_in
from layerguard.runtime.text.request import Request, request


def read_object(body: bytes, what: str) -> dict[str, Any]:
    """A body as a JSON object.

    Raises:
        InputError: it is not one.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: found no JSON ({error}); expected an object") from error
    if not isinstance(value, dict):
        raise InputError(f"{what}: found {type(value).__name__}; expected an object")
    return value


def requests_of(call: Mapping[str, Any]) -> list[Request]:
    """The requests of a call: its prompts, the texts of an embedding, and its chat, which is last.

    A call that has several of them is read whole: the upstream may read any.

    Raises:
        InputError: it has none of them, or they are not texts.
    """
    found: list[Any] = []
    for name in ("input", "prompt"):
        value = call.get(name)
        if value is not None:
            found += value if isinstance(value, list) else [value]
    requests = [request(text) for text in found]
    if call.get("messages") is not None:
        requests.append(request(messages=call["messages"], tools=call.get("tools")))
    if not requests:
        raise InputError(
            "found no messages, prompt or input; expected a call of OpenAI's interface"
        )
    return requests


def answers_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The message of each choice of a whole answer; of a plain completion one with its text.

    Raises:
        InputError: there are no choices.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise InputError("found no choices; expected an answer of OpenAI's interface")
    return [
        one["message"] if isinstance(one.get("message"), dict) else {"content": text_in(one)}
        for one in choices
    ]


class Events:
    """An answer that comes as server-sent events: what its choices hold, and what may pass.

    Attributes:
        messages: the message so far of each choice, by its index.
    """

    def __init__(self) -> None:
        self.messages: dict[int, GrowingMessage] = {}
        self._read, self._rest = b"", b""

    def feed(self, chunk: bytes, *, last: bool) -> dict[int, str]:
        """Read the complete lines of a chunk, at the end also an incomplete one.

        Returns:
            All of the text of each choice that has a new one.

        Raises:
            InputError: an event is no part of an answer.
        """
        lines, end, self._rest = (self._rest + chunk).rpartition(b"\n")
        if last:
            lines, end, self._rest = lines + end + self._rest, b"", b""
        self._read += lines + end
        changed: dict[int, str] = {}
        for line in lines.split(b"\n"):
            kind, _, data = line.strip().partition(b":")
            data = data.strip()
            if kind == b"data" and data != b"[DONE]":
                changed |= self._add(read_object(data, "event").get("choices", []))
        return changed

    def release(self, *, last: bool) -> bytes:
        """What was read and may pass: nothing from the first call of a tool on, until the end."""
        if not last and any(one.calls for one in self.messages.values()):
            return b""
        passed, self._read = self._read, b""
        return passed

    def _add(self, choices: Sequence[Any]) -> dict[int, str]:
        changed: dict[int, str] = {}
        for one in choices:
            index = one.get("index", 0) if isinstance(one, dict) else None
            if not isinstance(index, int):
                raise InputError("event: found a choice without an index; expected one")
            message = self.messages.setdefault(index, GrowingMessage())
            if message.add(parts_of(one)):
                changed[index] = message.text
        return changed
