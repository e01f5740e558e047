"""Requests with what a model answered to them, in the forms of OpenAI's interface."""

from collections.abc import Mapping
from typing import Any

from layerguard.runtime.text.request import Request, request


def answered(asked: Request | None, message: Mapping[str, Any]) -> Request:
    """A request with the answer to it; the answer alone if the request is not known.

    Args:
        asked: the request, without an answer.
        message: what the model wrote: a text as ``content``, calls of tools, a refusal.

    Raises:
        InputError: the message cannot be read.
    """
    turn = {"role": "assistant", **_given(message)}
    if asked is not None and asked.messages is not None:
        return request(messages=[*asked.messages, turn], tools=asked.tools)
    if not holds_more(message):
        text = turn.get("content", "")
        return request(text) if asked is None else request(prompt=asked.prompt, response=text)
    earlier = [] if asked is None else [{"role": "user", "content": asked.prompt}]
    return request(messages=[*earlier, turn])


def holds_more(message: Mapping[str, Any]) -> bool:
    """Whether a message holds more than a text, such as calls of tools."""
    given = _given(message)
    return not isinstance(given.get("content", ""), str) or bool(given.keys() - {"role", "content"})


def _given(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}
