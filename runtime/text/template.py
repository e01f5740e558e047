"""The deployment template: how a request is laid out for the served model.

Text from outside that spells a special token stays text, wherever in a chat it stands: it is taken
out before rendering, and comes back as a piece of its own that the tokenizer reads literally.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from layerguard.runtime.bundle.manifest import TEXT_RULES
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.chat import chat_turns
from layerguard.runtime.text.request import Message, Request
from layerguard.runtime.text.roles import USER, Owner, owners, role_of
from layerguard.runtime.text.sandbox import compile_chat
from layerguard.runtime.text.trajectory import turns, without_system

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
        rules_version: int = TEXT_RULES,
    ) -> None:
        """Compile the template.

        Args:
            template: ``chat``, or a text with ``{prompt}`` in it.
            chat_template: the jinja2 text; needed where ``template`` is ``chat``, and for the
                trajectory view.
            special_tokens: what the chat template may name, such as ``bos_token``.
            never_typed: the strings that the tokenizer reads as special tokens.
            rules_version: how a chat is laid out; see ``TextRules``.
        """
        self._variables: dict[str, Any] = dict(special_tokens)
        if rules_version > 1:  # a template may ask whether it is defined; in transformers it is
            self._variables = {"documents": None, **special_tokens}
        self._rules_version = rules_version
        longest_first = sorted(never_typed, key=len, reverse=True)
        self._typed = re.compile("|".join(map(re.escape, [*longest_first, _OPEN])))
        self.is_chat = template == "chat"
        self._chat_template = chat_template
        if self.is_chat:
            _ = self._chat  # one that does not compile is refused when the bundle is opened
        self._before, _, self._after = template.partition("{prompt}")
        self._is_bare = template == "{prompt}"

    def render(self, request: Request) -> list[Piece]:
        """The prompt view of a request as pieces to tokenise one after the other.

        Raises:
            InputError: the chat template refuses the messages, or has an error of its own.
        """
        taken: list[str] = []
        hide = partial(self._hide, taken)
        if self._is_bare:
            return [(request.prompt.strip() or " ", False)]
        if self.is_chat:
            rendered = self._render_chat(request, hide)
        else:
            prompt = hide(request.prompt.strip() or " ")
            rendered = f"{self._before}{prompt}{self._after}"
        return _pieces(rendered, taken)

    def owners(self, request: Request) -> list[Owner]:
        """Whose the characters of ``render``'s text are; see ``roles.owners``.

        A chat up to some turn that the template refuses gives that turn nothing.

        Raises:
            InputError: the chat template refuses the messages.
        """
        if not self.is_chat:
            return [(0, USER)]
        last = role_of(request.asked[-1]["role"])
        if len(request.asked) == 1:
            return [(0, last)]
        taken: list[str] = []
        messages, tools = self._hidden(request, partial(self._hide, taken))

        def prefixes() -> Iterator[tuple[str, int]]:
            for count, turn in enumerate(messages[:-1], 1):
                role = role_of(turn["role"])
                if role == role_of(messages[count]["role"]):
                    continue  # the turns behind it, of the same role, reach further
                with suppress(InputError):
                    yield _text(self._open_answer(messages[:count], tools), taken), role

        return owners(_text(self._open_answer(messages, tools), taken), prefixes(), last)

    def render_trajectory(self, request: Request) -> list[Piece]:
        """The trajectory view of a request as pieces: a chat in which no answer is opened.

        Raises:
            InputError: the request's turns are not an agent's, or the chat template refuses them.
        """
        taken: list[str] = []
        chat = [{**turn, "content": self._hide(taken, turn["content"])} for turn in turns(request)]
        try:
            rendered = self._lay_out(chat)
        except InputError:  # many templates take no system turn
            rendered = self._lay_out(without_system(chat))
        return _pieces(rendered, taken)

    @cached_property
    def _chat(self) -> Callable[..., str]:
        return compile_chat(self._chat_template or "")

    def _hide(self, taken: list[str], text: str) -> str:
        """``text`` with marks for all that spells special tokens, which goes to ``taken``."""

        def take(match: re.Match[str]) -> str:
            taken.append(match[0])
            return f"{_OPEN}{len(taken) - 1}{_CLOSE}"

        return self._typed.sub(take, text)

    def _render_chat(self, request: Request, hide: Callable[[str], str]) -> str:
        return self._open_answer(*self._hidden(request, hide))

    def _hidden(
        self, request: Request, hide: Callable[[str], str]
    ) -> tuple[list[dict[str, Any]], Any]:
        """The turns up to where the answer begins, and the tools, without special tokens."""
        messages = [_each(turn, hide) for turn in chat_turns(request, self._rules_version)]
        return messages, _each(request.tools, hide)

    def _open_answer(self, messages: Sequence[Message], tools: Any) -> str:
        return self._lay_out(messages, tools=tools, add_generation_prompt=True)

    def _lay_out(
        self, messages: Sequence[Message], *, tools: Any = None, add_generation_prompt: bool = False
    ) -> str:
        """What the chat template makes of messages from which special tokens are hidden."""
        try:
            return self._chat(
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise InputError(
                f"the bundle's chat template refused the messages ({error}); expected turns as "
                "the model was trained on, such as user and assistant in turn"
            ) from error


def _each(value: Any, hide: Callable[[str], str]) -> Any:
    """A JSON value with ``hide`` done to each text in it, keys too: tools come from outside."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_each(key, hide): _each(item, hide) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(item, hide) for item in value]
    return value


def _text(rendered: str, taken: Sequence[str]) -> str:
    """The rendered text with what was taken out of it."""
    return "".join(text for text, _ in _pieces(rendered, taken))


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
