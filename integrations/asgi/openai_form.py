"""Bodies of OpenAI's interfaces: what a guard reads in them, and its errors.

They are those of chat completions, of text completions, and of responses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerguard.runtime import InputError
from layerguard.runtime.text.growing_message import parts_of, text_in
from layerguard.runtime.text.openai_call import need_answer_now, read_object, tools_of
from layerguard.runtime.text.responses_form import answer_in, answer_of, chat_of
from layerguard.runtime.text.server_events import data_of, split_events

Arguments = dict[str, Any]
"""Keyword arguments of ``Guard.check``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of one request.

    Attributes:
        prompts: a chat, or each of the prompts of a text completion.
        suffix: the text that follows the completion; empty if there is none.
        choices: number of answers to each prompt.
        is_response: whether the answer is one of the Responses API.
    """

    prompts: tuple[Arguments, ...]
    suffix: str = ""
    choices: int = 1
    is_response: bool = False

    @classmethod
    def of(cls, body: bytes) -> "Asked":
        """The texts of a request's body.

        Raises:
            InputError: the body is not a request of OpenAI's interface, or has token ids.
        """
        asked = parsed(body)
        choices = asked.get("n") or 1
        if not isinstance(choices, int) or choices < 1:
            raise InputError(f"n: found {choices!r}; expected a whole number, at least 1")
        named = [name for name in ("messages", "prompt", "input") if name in asked]
        if len(named) > 1:
            raise InputError(f"found {' and '.join(named)}; expected one of them")
        if "input" in asked:
            need_answer_now(asked)
            return cls((chat_of(asked),), is_response=True)
        if "messages" in asked:
            chat = {"messages": asked["messages"], "tools": tools_of(asked)}
            return cls((chat,), choices=choices)
        prompts = asked.get("prompt")
        prompts = prompts if isinstance(prompts, list) else [prompts]
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError("prompt: expected a text or a list of texts; token ids are not read")
        suffix = asked.get("suffix") or ""
        return cls(tuple({"prompt": prompt} for prompt in prompts), suffix, choices)

    def questions(self) -> list[Arguments]:
        """What to check before the request goes on."""
        return [*self.prompts, *([{"text": self.suffix}] if self.suffix else [])]

    def prompt_of(self, choice: int) -> Arguments:
        """The prompt that a choice of the answer belongs to.

        Raises:
            InputError: the request has no such prompt.
        """
        index = choice // self.choices
        if not 0 <= index < len(self.prompts):
            raise InputError(f"choice {choice}: the request has {len(self.prompts)} prompts")
        return self.prompts[index]

    def answered(self, choice: int, message: Mapping[str, Any]) -> Arguments:
        """The prompt of a choice with its answer, a message or ``{"text": ...}``."""
        prompt = self.prompt_of(choice)
        text = text_in(message)
        if "messages" not in prompt:
            return {**prompt, "response": text}
        turn: dict[str, Any] = {"role": "assistant", "content": text}
        for name in ("tool_calls", "function_call"):
            if message.get(name):
                turn[name] = message[name]
        return {**prompt, "messages": [*prompt["messages"], turn]}


def answers(body: bytes, asked: Asked, *, is_events: bool = False) -> list[Arguments]:
    """What to check of a complete answer: each choice with its prompt.

    Args:
        body: the answer.
        asked: the request.
        is_events: whether the body is one of server-sent events, of the Responses API.

    Raises:
        InputError: the body is no such answer, or has sound.
    """
    if asked.is_response:
        (prompt,) = asked.prompts
        turn = answer_in(events_of(body)) if is_events else answer_of(parsed(body))
        return [{**prompt, "messages": [*prompt["messages"], turn]}]
    return [
        asked.answered(choice.get("index", 0), parts_of(choice))
        for choice in choices_of(parsed(body))
    ]


def choices_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The choices of an answer or of one chunk of it.

    Raises:
        InputError: there is no list of choices.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
        raise InputError("choices: expected a list of objects")
    return choices


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The objects of server-sent events.

    Raises:
        InputError: an event is no object of JSON.
    """
    found = (data_of(event) for event in split_events(body))
    return [parsed(data) for data in found if data and data != b"[DONE]"]


def error(message: str, kind: str, code: str) -> bytes:
    """An error in OpenAI's form, as JSON."""
    body = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": body}).encode()


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; see ``read_object``."""
    return read_object(body, "the body")
