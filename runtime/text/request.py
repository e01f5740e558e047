"""Requests: from the caller's arguments to the exact strings that a detector reads.

A request has two basic views. LCF reads ``prompt``, the prompt in its deployment template. SIREN
reads ``content``, plain text without chat markers, as in the published package
(``docs/detectors/siren.md``).
"""

import json
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
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of text parts in OpenAI's interfaces."""

_BLANKS = re.compile(r"[ \t]+")
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Request:
    """The text to check: a prompt with or without its response, or a whole chat."""

    prompt: str
    response: str | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None

    @property
    def prompt_turns(self) -> tuple[Message, ...]:
        """The turns before the answer; at least one.

        Assistant turns at the end of the chat are the answer.
        """
        turns = self.messages or ({"role": "user", "content": self.prompt},)
        while len(turns) > 1 and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        return turns

    @property
    def answer(self) -> str:
        """The text of the answer; empty if there is none yet."""
        if self.messages is None:
            return self.response or ""
        turns = self.messages[len(self.prompt_turns) :]
        return "\n".join(text for text in map(text_of, turns) if text)

    def content(self) -> str:
        """The plain text of all turns without chat markers; never empty."""
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
    """Make a request from the arguments of ``Guard.check``: a text, a prompt, or messages.

    Raises:
        InputError: none or several of the three were given, or an argument has the wrong type.
    """
    given = {"text": text, "prompt": prompt, "messages": messages}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"found {' and '.join(named) or 'nothing'}; expected exactly one of text, prompt, "
            "messages (response goes with prompt, tools with messages)"
        )
    for name, value, owner in (("response", response, "prompt"), ("tools", tools, "messages")):
        if value is not None and owner not in named:
            raise InputError(f"found {named[0]} and {name}; {name} goes with {owner}=")
    if messages is not None:
        return _chat(messages, tools)
    for name, value in (("text", text), ("prompt", prompt), ("response", response)):
        if value is not None:
            check_text(name, value)
    return Request(prompt=str(text if text is not None else prompt), response=response)


def check_text(name: str, value: Any) -> None:
    """Check that ``value`` is a str that tokenizers can read.

    Raises:
        InputError: ``value`` is not a str, or it contains a lone surrogate.
    """
    if not isinstance(value, str):
        raise InputError(f"{name}: found {type(value).__name__}; expected a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: found {value[error.start]!a}, a lone surrogate, at character "
            f"{error.start}; expected Unicode text, such as bytes decoded with errors='replace'"
        ) from error


def _chat(messages: Any, tools: Any) -> Request:
    """A request of chat turns and optional tools, all of them checked."""
    for name, value, what in (("messages", messages, "turns"), ("tools", tools, "objects")):
        if value is None:
            continue
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise InputError(f"{name}: found {type(value).__name__}; expected a list of {what}")
        for index, item in enumerate(value):
            if not isinstance(item, Mapping):
                kind = type(item).__name__
                raise InputError(f"{name}[{index}]: found {kind}; expected an object")
        try:  # refuses lone surrogates, circular references and extreme nesting
            json.dumps([dict(item) for item in value], ensure_ascii=False, default=str).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{name}: {error}; expected values that JSON can represent") from error
    if not messages:
        raise InputError("messages: found an empty list; expected at least one turn")
    for index, message in enumerate(messages):
        _check_parts(f"messages[{index}]", message.get("content"))
    texts = [text_of(message) for message in messages]
    prompt_texts = [t for t, m in zip(texts, messages, strict=True) if m["role"] != "assistant"]
    return Request(
        prompt="\n".join(prompt_texts),
        messages=tuple(messages),
        tools=None if tools is None else tuple(tools),
    )


def _check_parts(where: str, content: Any) -> None:
    """Refuse parts that are not text: the model would read content that the guard cannot see.

    Raises:
        InputError: a part is an image, audio, a file or anything else without text.
    """
    if not isinstance(content, (list, tuple)):
        return
    for index, part in enumerate(content):
        if not isinstance(part, Mapping):
            continue  # ``text_of`` refuses it
        kind = part.get("type", "text")
        if kind not in _TEXT_PARTS or "text" not in part:
            keys = ", ".join(map(str, part))[:60] or "no keys"
            raise InputError(
                f"{where}.content[{index}]: found a part of type {str(kind)[:40]!r} with {keys}; "
                'expected only text parts, {"type": "text", "text": ...}: a guard cannot read '
                "images, audio or files, and does not check a request without them"
            )


def text_of(message: Message) -> str:
    """The text of one chat message; several text parts are joined by newlines.

    Raises:
        InputError: the message has no role, or its content is neither text nor text parts.
    """
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        keys = ", ".join(map(str, message))
        raise InputError(
            f"found a message with {keys or 'no keys'} and a role of type {type(role).__name__}; "
            'expected {"role": "user", "content": ...}'
        )
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        texts = [p.get("text", "") if isinstance(p, Mapping) else None for p in content]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(text for text in texts if text)
    raise InputError(
        f"message of role {role[:40]!r}: content is {type(content).__name__}; "
        "expected a str or a list of text parts"
    )


def clean(text: str) -> str:
    """``text`` without chat markers and runs of white space; one space if the result is empty."""
    return tidy(text).strip() or " "


def tidy(text: str) -> str:
    """Like ``clean``, but keeps white space at both ends, as one blank or one empty line."""
    text = _BLANKS.sub(" ", _MARKER.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", text)
