"""From what a caller passes to the exact strings a detector reads.

Two views of one request: the ``prompt`` in its deployment template, which LCF reads, and the
``content``, plain text with chat markers cleaned, which SIREN reads (runtime of the published
package, METHODS "online scoring").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerguard.runtime.errors import InputError

Message = Mapping[str, Any]
"""One turn of a chat: ``{"role": ..., "content": ...}``."""

_CHAT_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]", "<s>", "</s>", "<|s|>", "<|/s|>",
)  # fmt: skip
_MARKER = re.compile("|".join(re.escape(marker) for marker in _CHAT_MARKERS))
_BLANKS = re.compile(r"[ \t]+")
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be judged: a prompt with or without its response, or a whole chat."""

    prompt: str
    response: str | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None

    def content(self) -> str:
        """The plain text of everything said, cleaned of chat markers; never empty."""
        if self.messages is not None:
            parts = [text_of(message) for message in self.messages]
        else:
            parts = [self.prompt, self.response or ""]
        return clean("\n".join(part for part in parts if part))


def request(
    text: str | None = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    messages: Sequence[Message] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> Request:
    """One request from the arguments of ``Guard.check``: a text, a prompt, or messages.

    Raises:
        InputError: none or several of them were given, or one is not of the right type.
    """
    given = {"text": text, "prompt": prompt, "messages": messages}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"found {' and '.join(named) or 'nothing'}; expected exactly one of text, prompt, "
            "messages (response goes with prompt, tools with messages)"
        )
    if messages is not None:
        if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
            raise InputError(f"messages: found {type(messages).__name__}; expected a list of turns")
        if not messages:
            raise InputError("messages: found an empty list; expected at least one turn")
        return Request(
            prompt="\n".join(text_of(m) for m in messages if m.get("role") != "assistant"),
            messages=tuple(messages),
            tools=None if tools is None else tuple(tools),
        )
    for name, value in (("text", text), ("prompt", prompt), ("response", response)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name}: found {type(value).__name__}; expected a str")
    if text is not None and response is not None:
        raise InputError("found text and response; a response goes with prompt=")
    return Request(prompt=str(text if text is not None else prompt), response=response)


def text_of(message: Message) -> str:
    """The text of one chat message; its parts joined by newlines where it has several.

    Raises:
        InputError: the message has no role, or its content is neither text nor text parts.
    """
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InputError(f'found {message!r}; expected a message {{"role": ..., "content": ...}}')
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        return "\n".join(str(part["text"]) for part in content if "text" in part)
    raise InputError(
        f"message of role {message['role']!r}: content is {type(content).__name__}; "
        "expected a str or a list of text parts"
    )


def clean(text: str) -> str:
    """``text`` without chat markers and runs of white space; one space if nothing is left."""
    text = _BLANKS.sub(" ", _MARKER.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", text).strip() or " "
