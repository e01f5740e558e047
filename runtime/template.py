"""The deployment template: how a request is laid out for the served model.

Chat templates are rendered in jinja2's immutable sandbox, without transformers. Text of the user
that spells a special token stays text: it is taken out before rendering, and comes back as a piece
of its own that the tokenizer reads literally.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from layerguard.runtime.errors import InputError
from layerguard.runtime.text import Message, Request, text_of

Piece = tuple[str, bool]
"""A part of the rendered text, and whether special tokens in it are meant as such."""

_MARK = re.compile("\ue000([0-9]+)\ue001")
_MAX_RENDERED = 1 << 24


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
        self._typed = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.is_chat = template == "chat"
        self._chat = _compile(chat_template or "") if self.is_chat else None
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
            return f"\ue000{len(taken) - 1}\ue001"

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
        turns = [{**turn, "content": hide(text_of(turn))} for turn in messages]
        try:
            rendered = chat(
                messages=turns,
                tools=None if request.tools is None else list(request.tools),
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except (TemplateError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"the bundle's chat template refused the messages ({error}); expected turns as "
                "the model was trained on, such as user and assistant in turn"
            ) from error
        if len(rendered) > _MAX_RENDERED:
            raise InputError(f"rendered to {len(rendered)} characters; at most {_MAX_RENDERED}")
        return rendered


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


def _compile(source: str) -> Callable[..., str]:
    """The render function of a chat template, in a sandbox with what such templates rely on."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    try:
        return environment.from_string(source).render
    except TemplateError as error:
        raise InputError(
            f"the bundle's chat template does not compile ({error}); export the model again, "
            "with --template and a text that has {prompt} in it"
        ) from error
