"""Calls and answers of OpenAI's interface, as they pass through a proxy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
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
        one["message"]
        if isinstance(one.get("message"), dict)
        else {"content": _text(one, "message")}
        for one in choices
    ]


class Events:
    """The text of each choice of an answer that comes as server-sent events.

    Attributes:
        texts: the text so far of each choice, by its index.
    """

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Read the complete lines of a chunk, and keep the rest for the next one.

        Raises:
            InputError: an event is no part of an answer.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            kind, _, data = line.strip().partition(b":")
            data = data.strip()
            if kind == b"data" and data != b"[DONE]":
                self._read(read_object(data, "event").get("choices", []))

    def _read(self, choices: Sequence[Any]) -> None:
        for one in choices:
            index = one.get("index", 0) if isinstance(one, dict) else None
            if not isinstance(index, int):
                raise InputError("event: found a choice without an index; expected one")
            self.texts[index] = self.texts.get(index, "") + _text(one, "delta")


def _text(choice: Mapping[str, Any], key: str) -> str:
    """The text of a choice of a chat, or of a plain completion."""
    message = choice.get(key)
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise InputError(f"choice: found {type(text).__name__}; expected a text")
    return text or ""
