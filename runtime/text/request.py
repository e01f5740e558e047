"""Requests: from the caller's arguments to the exact strings that a detector reads.

A request has two basic views. LCF reads ``prompt``, the prompt in its deployment template. SIREN
reads ``content``, plain text without chat markers, as in the published package
(``docs/detectors/siren.md``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.limits import NO_LIMITS, Limits
from layerguard.runtime.text.cuts import cut_apart
from layerguard.runtime.text.leaves import Leaf, is_text_part, leaves
from layerguard.runtime.text.measure import longest_allowed, shortened, text_lengths

Message = Mapping[str, Any]
"""One turn of a chat: ``{"role": ..., "content": ...}``."""

_CHAT_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]", "<s>", "</s>", "<|s|>", "<|/s|>",
)  # fmt: skip
_OUTSIDE_MARKERS = re.compile(r"\s|(?<=>)[^>]")
_OUTSIDE_RUNS = re.compile(r"(?<=\S).", re.DOTALL)
_BLANKS = re.compile(r"[ \t]+")
_EMPTY_LINES = re.compile(r"\n{3,}")
_PART = 1 << 14
"""Least characters between two cuts of a long text."""


@dataclass(frozen=True, slots=True)
class Request:
    """The text to check: a prompt with or without its response, or a whole chat.

    Attributes:
        prompt: the prompt; of a chat the texts of all turns but the assistant's.
        response: the answer, if the request is not a chat and has one.
        messages: the turns of a chat.
        tools: the tools of a chat.
        limits: the limits that it is within; None if they were not checked.
        is_cut: whether characters were left out to be within them.
    """

    prompt: str
    response: str | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    limits: Limits | None = field(default=None, compare=False, repr=False)
    is_cut: bool = field(default=False, compare=False, repr=False)

    def within(self, limits: Limits) -> "Request":
        """The request within limits: itself, or with shortened texts.

        Raises:
            InputError: the request is too large, and may not or cannot be shortened.
        """
        if self.limits == limits:
            return self
        if self.messages is None:
            found = _plain(self.prompt, self.response, limits)
        else:
            found = _chat(self.messages, self.tools, limits)
        return replace(found, is_cut=found.is_cut or self.is_cut)

    @property
    def prompt_turns(self) -> tuple[Message, ...]:
        """The turns before the answer; at least one.

        Assistant turns at the end of the chat are the answer.
        """
        turns = self.messages or ({"role": "user", "content": self.prompt},)
        end = len(turns)
        while end > 1 and turns[end - 1]["role"] == "assistant":
            end -= 1
        return turns[:end]

    @property
    def answer(self) -> str:
        """The text of the answer; empty if there is none yet."""
        if self.messages is None:
            return self.response or ""
        turns = self.messages[len(self.prompt_turns) :]
        return joined(*map(text_of, turns))

    def contents(self, *, newest: bool = False) -> tuple[str, ...]:
        """The plain texts without chat markers.

        The first one is the text of all turns, one space if there is none. The others are read on
        their own, so that no text dilutes another: with ``newest``, that of the newest turns of a
        chat with earlier ones; and what a chat holds beside its turns' text, such as documents,
        calls of tools and tool descriptions.
        """
        if self.messages is None:
            return (clean(joined(self.prompt, self.response)),)
        texts = [clean(joined(*map(text_of, self.messages)))]
        if newest and (turns := self._newest_turns()):
            texts.append(clean(joined(*map(text_of, turns))))
        texts.append(clean(joined(*(leaf.text for leaf in self.leaves() if not leaf.is_plain))))
        return (texts[0], *(text for text in texts[1:] if text != " "))

    def _newest_turns(self) -> tuple[Message, ...]:
        """The last turns of one role before the answer; none if there are no earlier ones."""
        turns = self.prompt_turns
        start = len(turns)
        while start and turns[start - 1]["role"] == turns[-1]["role"]:
            start -= 1
        return turns[start:] if start else ()

    def content(self) -> str:
        """All plain texts as one, joined by newlines; never empty."""
        return "\n".join(self.contents())

    def leaves(self) -> list[Leaf]:
        """All strings, each with its path."""
        if self.messages is not None:
            return list(leaves(self.messages, self.tools or ()))
        texts = (("prompt", self.prompt), ("response", self.response))
        return [Leaf(name, text, is_plain=True) for name, text in texts if text is not None]


def request(
    text: str | None = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    messages: Sequence[Message] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    limits: Limits = NO_LIMITS,
) -> Request:
    """Make a request from the arguments of ``Guard.check``: a text, a prompt, or messages.

    Raises:
        InputError: none or several of the three were given, an argument has the wrong type, or the
            request is beyond the limits.
    """
    given = {"text": text, "prompt": prompt, "messages": messages}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        rest = {"response": response, "tools": tools}
        found = named or [f"only {name}" for name, value in rest.items() if value is not None]
        raise InputError(
            f"found {' and '.join(found) or 'nothing'}; expected exactly one of text, prompt, "
            "messages (response goes with prompt, tools with messages)"
        )
    for name, value, owner in (("response", response, "prompt"), ("tools", tools, "messages")):
        if value is not None and owner not in named:
            raise InputError(f"found {named[0]} and {name}; {name} goes with {owner}=")
    if messages is not None:
        return _chat(messages, tools, limits)
    for name, value in (("text", text), ("prompt", prompt), ("response", response)):
        if value is not None:
            _check_is_text(name, value)
    return _plain(str(text if text is not None else prompt), response, limits, named[0])


def check_text(name: str, value: Any) -> None:
    """Check that ``value`` is a str that tokenizers can read.

    Raises:
        InputError: ``value`` is not a str, or it contains a lone surrogate.
    """
    _check_is_text(name, value)
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: found {value[error.start]!a}, a lone surrogate, at character "
            f"{error.start}; expected Unicode text, such as bytes decoded with errors='replace'"
        ) from error


def _check_is_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name}: found {type(value).__name__}; expected a str")


def _plain(prompt: str, response: str | None, limits: Limits, name: str = "prompt") -> Request:
    """A request of one text or two, within the limits."""
    length = longest_allowed([len(prompt), len(response or "")], limits)
    if length is not None:
        prompt, response = shortened(prompt, length), shortened(response, length)
    check_text(name, prompt)
    if response is not None:
        check_text("response", response)
    return Request(prompt, response, limits=limits, is_cut=length is not None)


def _chat(messages: Any, tools: Any, limits: Limits) -> Request:
    """A request of chat turns and optional tools, all of them checked, within the limits."""
    for name, value, what in (("messages", messages, "turns"), ("tools", tools, "objects")):
        if value is None:
            continue
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise InputError(f"{name}: found {type(value).__name__}; expected a list of {what}")
        limits.check_count(name, len(value))
        for index, item in enumerate(value):
            if not isinstance(item, Mapping):
                kind = type(item).__name__
                raise InputError(f"{name}[{index}]: found {kind}; expected an object")
    if not messages:
        raise InputError("messages: found an empty list; expected at least one turn")
    length = longest_allowed(text_lengths([*messages, *(tools or ())], limits), limits)
    if length is not None:
        messages, tools = shortened(messages, length), shortened(tools, length)
    for name, value in (("messages", messages), ("tools", tools or ())):
        for index, item in enumerate(value):
            check_strings(f"{name}[{index}]", item)
    texts = [text_of(message) for message in messages]
    prompt_texts = [t for t, m in zip(texts, messages, strict=True) if m["role"] != "assistant"]
    return Request(
        prompt="\n".join(prompt_texts),
        messages=tuple(messages),
        tools=None if tools is None else tuple(tools),
        limits=limits,
        is_cut=length is not None,
    )


def check_strings(path: str, value: Any) -> None:
    """Check every string inside a JSON value; see ``check_text``.

    Raises:
        InputError: a string has a lone surrogate, or a key is not a string.
    """
    if isinstance(value, str):
        check_text(path, value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(f"a key of {path}", key)
            check_strings(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_strings(f"{path}[{index}]", item)


def text_of(message: Message) -> str:
    """The text of one chat message; several text parts are joined by newlines, others left out.

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
    if isinstance(content, (list, tuple)) and all(map(_is_part, content)):
        return joined(*(part["text"] for part in content if is_text_part(part)))
    raise InputError(
        f"message of role {role[:40]!r}: content is {type(content).__name__}; "
        "expected a str or a list of text parts"
    )


def _is_part(part: Any) -> bool:
    """Whether it is an object whose text, if it has one, can be read."""
    return isinstance(part, Mapping) and isinstance(part.get("text", ""), _TEXTS)


_TEXTS = (str, Mapping, list, tuple)


def joined(*texts: str | None) -> str:
    """The texts that are not empty, joined by newlines."""
    return "\n".join(text for text in texts if text)


def clean(text: str) -> str:
    """``text`` without chat markers and runs of white space; one space if the result is empty."""
    return tidy(text).strip() or " "


def tidy(text: str) -> str:
    """Like ``clean``, but keeps white space at both ends, as one blank or one empty line.

    The parts between cuts are the same alone; other threads take turns between them.
    """
    return "".join(map(_tidy, cut_apart(text, _PART)))


def _tidy(text: str) -> str:
    if "<" in text or "[" in text:
        text = "".join(map(_without_markers, cut_apart(text, _PART, _OUTSIDE_MARKERS)))
    return "".join(map(_without_runs, cut_apart(text, _PART, _OUTSIDE_RUNS)))


def _without_markers(text: str) -> str:
    for marker in _CHAT_MARKERS:  # none overlaps another, and none has a blank in it
        text = text.replace(marker, " ")
    return text


def _without_runs(text: str) -> str:
    return _EMPTY_LINES.sub("\n\n", _BLANKS.sub(" ", text))
