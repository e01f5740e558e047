"""Calls and answers of OpenAI's interface, as they pass through a proxy."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.errors import RefusedError
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of, text_in
from layerguard.runtime.text.openai_call import need_answer_now, read_object, tools_of
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.responses_form import GrowingResponse, answer_of, chat_of, is_chat
from layerguard.runtime.text.server_events import EventReader, data_of


def requests_of(call: Mapping[str, Any]) -> list[Request]:
    """The requests of a call: its prompts, the texts of an embedding, and its chat, which is last.

    A call that has several of them is read whole: the upstream may read any. The chat may be one of
    the Responses API.

    Raises:
        InputError: it has none of them, they are not texts, or its answer shall be fetched later.
    """
    need_answer_now(call)
    found: list[Any] = []
    has_chat = is_chat(call)
    for name in ("suffix", "prompt") if has_chat else ("suffix", "input", "prompt"):
        value = call.get(name)
        if value is not None:
            found += value if isinstance(value, list) else [value]
    requests = [request(text) for text in found]
    if has_chat:
        requests.append(request(**chat_of({**call, "prompt": None})))
    if call.get("messages") is not None:
        requests.append(request(messages=call["messages"], tools=tools_of(call)))
    if not requests:
        raise InputError(
            "found no messages, prompt or input; expected a call of OpenAI's interface"
        )
    return requests


def may_embed(call: Mapping[str, Any]) -> bool:
    """Whether a call may be one for embeddings: it has an input, and nothing that a model answers.

    The answer to such a call may hold no text.
    """
    others = ("messages", "prompt")
    asks = is_chat(call) or any(call.get(name) is not None for name in others)
    return call.get("input") is not None and not asks


def answers_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a whole answer: of each choice, of a plain completion one with its text.

    Raises:
        InputError: there are no choices, and no output of the Responses API.
    """
    found: list[Mapping[str, Any]] = [answer_of(body)] if "output" in body else []
    choices = body.get("choices", [] if found else None)
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise InputError("found no choices and no output; expected an answer of OpenAI's interface")
    return [*found, *map(_message_of, choices)]


def _message_of(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message of a choice; the choice's own text is a part of it."""
    message, text = choice.get("message"), text_in(choice)
    if not isinstance(message, dict):
        return {"content": text_in(parts_of(choice))}
    return {**message, "choice": text} if text else message


class Events:
    """An answer that comes as server-sent events: what its choices hold, and what may pass.

    Attributes:
        messages: the message so far of each choice, by its index.
        response: the answer so far of the Responses API, which has no choices; None without one.
    """

    def __init__(self, most: int) -> None:
        """Start empty; ``most``: bytes that are held back at once."""
        self.messages: dict[int, GrowingMessage] = {}
        self.response: GrowingResponse | None = None
        self._most = most
        self._reader = EventReader()
        self._read: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes, *, last: bool) -> dict[int, str]:
        """Read the complete events of a chunk, at the end also an incomplete one.

        Returns:
            All of the text of each choice that has a new one.

        Raises:
            InputError: an event is no part of an answer.
            RefusedError: more bytes are held back than may be.
        """
        self._size += len(chunk)
        if self._size > self._most:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"answer: found more to hold back; expected at most {self._most} bytes",
            )
        changed: dict[int, str] = {}
        for event in self._reader.feed(chunk, last=last):
            self._read.append(event)
            data = data_of(event).strip()
            if data and data != b"[DONE]":
                changed |= self._add(read_object(data, "event"))
        return changed

    def whole(self) -> list[Mapping[str, Any]]:
        """The messages that are read at the end: those with calls, and that of ``response``.

        Raises:
            InputError: the answer is not complete.
        """
        called = [one.message() for one in self.messages.values() if one.calls]
        return [*called, *([self.response.turn()] if self.response else [])]

    def release(self, *, last: bool) -> bytes:
        """What was read and may pass: nothing that ``whole`` holds, until the end."""
        if not last and (self.response or any(one.calls for one in self.messages.values())):
            return b""
        passed = b"".join(self._read)
        self._read, self._size = [], len(self._reader.rest)
        return passed

    def _add(self, event: dict[str, Any]) -> dict[int, str]:
        kind = event.get("type")
        ends = kind == "error" and self.response is not None
        if ends or (isinstance(kind, str) and kind.startswith("response.")):
            self.response = self.response or GrowingResponse()
            self.response.add(event)
            if "choices" not in event:
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
