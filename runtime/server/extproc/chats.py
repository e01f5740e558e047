"""Calls and answers of OpenAI's interface, as they pass through a proxy."""

import json
from collections.abc import Mapping
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of, text_in
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.responses_form import answer_in, answer_of, chat_of, is_chat


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

    A call that has several of them is read whole: the upstream may read any. The chat may be one of
    the Responses API.

    Raises:
        InputError: it has none of them, or they are not texts.
    """
    found: list[Any] = []
    has_chat = is_chat(call)
    for name in ("prompt",) if has_chat else ("input", "prompt"):
        value = call.get(name)
        if value is not None:
            found += value if isinstance(value, list) else [value]
    requests = [request(text) for text in found]
    if has_chat:
        requests.append(request(**chat_of({**call, "prompt": None})))
    if call.get("messages") is not None:
        requests.append(request(messages=call["messages"], tools=call.get("tools")))
    if not requests:
        raise InputError(
            "found no messages, prompt or input; expected a call of OpenAI's interface"
        )
    return requests


def answers_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a whole answer: of each choice, of a plain completion one with its text.

    Raises:
        InputError: there are no choices, and no output of the Responses API.
    """
    if "output" in body and "choices" not in body:
        return [answer_of(body)]
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise InputError("found no choices and no output; expected an answer of OpenAI's interface")
    return [
        one["message"] if isinstance(one.get("message"), dict) else {"content": text_in(one)}
        for one in choices
    ]


class Events:
    """An answer that comes as server-sent events: what its choices hold, and what may pass.

    Attributes:
        messages: the message so far of each choice, by its index.
        responses: the events of the Responses API, which has no choices.
    """

    def __init__(self) -> None:
        self.messages: dict[int, GrowingMessage] = {}
        self.responses: list[dict[str, Any]] = []
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
                changed |= self._add(read_object(data, "event"))
        return changed

    def whole(self) -> list[Mapping[str, Any]]:
        """The messages that are read at the end: those with calls, and that of ``responses``.

        Raises:
            InputError: the answer is not complete.
        """
        called = [one.message() for one in self.messages.values() if one.calls]
        return [*called, *([answer_in(self.responses)] if self.responses else [])]

    def release(self, *, last: bool) -> bytes:
        """What was read and may pass: nothing that ``whole`` holds, until the end."""
        if not last and (self.responses or any(one.calls for one in self.messages.values())):
            return b""
        passed, self._read = self._read, b""
        return passed

    def _add(self, event: dict[str, Any]) -> dict[int, str]:
        if "choices" not in event and str(event.get("type")).startswith("response."):
            self.responses.append(event)
            return {}
        choices = event.get("choices", [] if "error" in event else None)
        if not isinstance(choices, list):
            raise InputError(
                "event: found no choices; expected a part of an answer of OpenAI's interface"
            )
        changed: dict[int, str] = {}
        for one in choices:
            index = one.get("index", 0) if isinstance(one, dict) else None
            if not isinstance(index, int):
                raise InputError("event: found a choice without an index; expected one")
            message = self.messages.setdefault(index, GrowingMessage())
            if message.add(parts_of(one)):
                changed[index] = message.text
        return changed
