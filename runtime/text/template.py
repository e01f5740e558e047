"""The deployment template: how a request is laid out for the served model.

Text from outside that spells a special token stays text, wherever in a chat it stands: it is taken
out before rendering, and comes back as a piece of its own that the tokenizer reads literally.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import Message, Request, text_of
from layerguard.runtime.text.sandbox import compile_chat

Piece = tuple[str, bool]
"""A part of the rendered text, and whether special tokens in it are meant as such."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")


class Template:
    """The template of a bundle; ``render`` is safe to call from many threads."""

    def __init__(
        self,
        template: str,
        chat_template: str | None,
        special_tokens: Mapping[str, str],
        never_typed: Sequence[str],
    ) -> None:
        """Compile the template.

        Args:
            template: ``chat``, or a text with ``{prompt}`` in it.
            chat_template: the jinja2 text where ``template`` is ``chat``.
            special_tokens: what the chat template may name, such as ``bos_token``.
            never_typed: the strings that the tokenizer reads as special tokens.
        """
        self._special_tokens = dict(special_tokens)
        longest_first = sorted(never_typed, key=len, reverse=True)
        self._typed = re.compile("|".join(map(re.escape, [*longest_first, _OPEN])))
        self.is_chat = template == "chat"
        self._chat = compile_chat(chat_template or "") if self.is_chat else None
        self._before, _, self._after = template.partition("{prompt}")
        self._is_bare = template == "{prompt}"

    def render(self, request: Request) -> list[Piece]:
        """The prompt view of a request as pieces to tokenise one after the other.

        Raises:
            InputError: the chat template refuses the messages, or has an error of its own.
        """
        taken: list[str] = []

        def take(match: re.Match[str]) -> str:
            taken.append(match[0])
            return f"{_OPEN}{len(taken) - 1}{_CLOSE}"

        def hide(text: str) -> str:
            return self._typed.sub(take, text)

        if self._is_bare:
            return [(request.prompt.strip() or " ", False)]
        if self._chat is None:
            prompt = hide(request.prompt.strip() or " ")
            rendered = f"{self._before}{prompt}{self._after}"
        else:
            rendered = self._render_chat(self._chat, request, hide)
        return _pieces(rendered, taken)

    def _render_chat(
        self, chat: Callable[..., str], request: Request, hide: Callable[[str], str]
    ) -> str:
        messages: Sequence[Message] = request.messages or (
            {"role": "user", "content": request.prompt.strip() or " "},
        )
        while len(messages) > 1 and messages[-1]["role"] == "assistant":
            messages = messages[:-1]  # a prompt ends where the answer begins
        try:
            rendered = chat(
                messages=[_each({**turn, "content": text_of(turn)}, hide) for turn in messages],
                tools=_each(request.tools, hide),
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise InputError(
                f"the bundle's chat template refused the messages ({error}); expected turns as "
                "the model was trained on, such as user and assistant in turn"
            ) from error
        return rendered


def _each(value: Any, hide: Callable[[str], str]) -> Any:
    """A JSON value with ``hide`` done to each text in it, keys too: tools come from outside."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_each(key, hide): _each(item, hide) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(item, hide) for item in value]
    return value


def _pieces(rendered: str, taken: Sequence[str]) -> list[Piece]:
    if not taken:
        return [(rendered, True)]
    pieces: list[Piece] = []
    end = 0
    for mark in _MARK.finditer(rendered):
        index = int(mark[1])
        if index < len(taken):
            pieces += [(rendered[end : mark.start()], True), (taken[index], False)]
            end = mark.end()
    pieces.append((rendered[end:], True))
    return [piece for piece in pieces if piece[0]]
