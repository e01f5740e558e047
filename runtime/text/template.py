"""The deployment template: formats a request as the served model receives it.

User text that spells a special token stays text, anywhere in a chat. Such text is replaced by a
placeholder before rendering, and becomes a separate piece that the tokenizer reads literally.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import accumulate, islice, pairwise
from typing import Any

from layerguard.runtime.bundle.manifest import TEXT_RULES
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.chat import chat_turns
from layerguard.runtime.text.cuts import matches
from layerguard.runtime.text.request import Message, Request
from layerguard.runtime.text.roles import USER, Owner, owners, owners_by_turn, role_of
from layerguard.runtime.text.sandbox import OnItem, compile_chat
from layerguard.runtime.text.shared_prefix import shared_prefix
from layerguard.runtime.text.trajectory import turns, without_system

Piece = tuple[str, bool]
"""A part of the rendered text, and whether to parse special tokens in it."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")
_LONGEST_PLACEHOLDER = 11


class Template:
    """The template of a bundle. ``render`` is thread-safe."""

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
            template: ``chat``, or a text that contains ``{prompt}``.
            chat_template: the jinja2 text. Required if ``template`` is ``chat``, and for the
                trajectory view.
            special_tokens: variables for the chat template, such as ``bos_token``.
            never_typed: strings that the tokenizer parses as special tokens.
            rules_version: version of the text rules; see ``TextRules``.
        """
        self._variables: dict[str, Any] = dict(special_tokens)
        if rules_version > 1:  # transformers defines it too, and a template may test for that
            self._variables = {"documents": None, **special_tokens}
        self._rules_version = rules_version
        longest_first = sorted(filter(None, [*never_typed, _OPEN]), key=len, reverse=True)
        self._typed = re.compile("|".join(map(re.escape, longest_first)))
        self._longest_typed = len(longest_first[0])
        self.is_chat = template == "chat"
        self._chat_template = chat_template
        if self.is_chat:
            _ = self._chat  # compiled now, so that a faulty template is refused at load
        self._before, _, self._after = template.partition("{prompt}")
        self._is_bare = template == "{prompt}"

    def render(self, request: Request) -> list[Piece]:
        """The prompt view of a request, as pieces to tokenise one after the other.

        Raises:
            InputError: the chat template refuses the messages, or the template has an error.
        """
        hidden: dict[str, int] = {}
        hide = partial(self._hide, hidden)
        if self._is_bare:
            return [(request.prompt.strip() or " ", False)]
        if self.is_chat:
            rendered = self._render_chat(request, hide)
        else:
            prompt = hide(request.prompt.strip() or " ")
            rendered = f"{self._before}{prompt}{self._after}"
        return _pieces(rendered, hidden)

    def owners(self, request: Request) -> list[Owner]:
        """The role of each part of the text that ``render`` gives; see ``roles.owners``.

        If the template refuses the chat up to some turn, no part is assigned to that turn. A long
        chat is rendered once, not up to each turn; its roles are the same for templates that render
        each turn alone.

        Raises:
            InputError: the chat template refuses the messages.
        """
        if not self.is_chat:
            return [(0, USER)]
        last = role_of(request.prompt_turns[-1]["role"])
        if len(request.prompt_turns) == 1:
            return [(0, last)]
        hidden: dict[str, int] = {}
        messages, tools = self._with_placeholders(request, partial(self._hide, hidden))

        roles = [role_of(turn["role"]) for turn in messages]
        # if the next turn has the same role, it has a longer prefix
        changes = [i for i in range(1, len(roles)) if roles[i] != roles[i - 1]]

        def prefixes() -> Iterator[tuple[str, int]]:
            for count in changes:
                with suppress(InputError):
                    prefix = _text(self._open_answer(messages[:count], tools), hidden)
                    yield prefix, roles[count - 1]

        starts: list[tuple[int, int]] = []
        rendered = self._open_answer(messages, tools, _noting(messages, starts))
        if len(changes) * (len(messages) + len(rendered) // _TURN) <= _MOST_RENDERED:
            return owners(_text(rendered, hidden), prefixes(), last)
        ended = self._render_template(messages, tools=tools)
        end = shared_prefix(ended, rendered)
        texts = _turn_texts(rendered[:end], starts, len(messages))
        turns = [(_text(text, hidden), role) for text, role in zip(texts, roles, strict=True)]
        return owners_by_turn(turns, _text(rendered[end:], hidden))

    def render_trajectory(self, request: Request) -> list[Piece]:
        """The trajectory view of a request as pieces: a chat without a generation prompt.

        Raises:
            InputError: the turns are not those of an agent, or the chat template refuses them.
        """
        hidden: dict[str, int] = {}
        chat = [{**turn, "content": self._hide(hidden, turn["content"])} for turn in turns(request)]
        try:
            rendered = self._render_template(chat)
        except InputError:  # many templates accept no system turn
            rendered = self._render_template(without_system(chat))
        return _pieces(rendered, hidden)

    @cached_property
    def _chat(self) -> Callable[..., str]:
        return compile_chat(self._chat_template or "")

    def _hide(self, hidden: dict[str, int], text: str) -> str:
        """Replace text that spells special tokens by placeholders; ``hidden`` numbers the texts."""

        def shown() -> Iterator[str]:
            end = 0
            for match in matches(self._typed, text, self._longest_typed):
                number = hidden.setdefault(match[0], len(hidden))
                yield f"{text[end : match.start()]}{_OPEN}{number}{_CLOSE}"
                end = match.end()
            yield text[end:]

        parts = shown()  # joined some at a time: all threads wait while a long list is freed
        return "".join(iter(lambda: "".join(islice(parts, 1_000)), ""))

    def _render_chat(self, request: Request, hide: Callable[[str], str]) -> str:
        return self._open_answer(*self._with_placeholders(request, hide))

    def _with_placeholders(
        self, request: Request, hide: Callable[[str], str]
    ) -> tuple[list[dict[str, Any]], Any]:
        """The turns before the answer, and the tools, with special tokens hidden."""
        messages = [_each(turn, hide) for turn in chat_turns(request, self._rules_version)]
        return messages, _each(request.tools, hide)

    def _open_answer(
        self, messages: Sequence[Message], tools: Any, on_item: OnItem | None = None
    ) -> str:
        return self._render_template(
            messages, tools=tools, add_generation_prompt=True, on_item=on_item
        )

    def _render_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Any = None,
        add_generation_prompt: bool = False,
        on_item: OnItem | None = None,
    ) -> str:
        """Render the chat template with messages in which special tokens are hidden."""
        try:
            return self._chat(
                on_item,
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except Exception as error:  # a template is a program and may raise anything
            raise InputError(
                f"the bundle's chat template refused the messages ({error}); expected turns like "
                "those the model was trained on, such as alternating user and assistant turns"
            ) from error


_MOST_RENDERED = 20_000
"""Most turns that are rendered to find roles, summed over all prefixes of a chat: up to about 140
turns of alternating roles."""

_TURN = 1_000
"""Characters that cost about as much as one more turn."""


def _noting(messages: Sequence[Message], starts: list[tuple[int, int]]) -> OnItem:
    """A listener that notes where in the text the template begins a turn, and which."""
    numbers = {id(turn): number for number, turn in enumerate(messages)}

    def note(place: int, item: Any) -> None:
        if id(item) in numbers:
            starts.append((place, numbers[id(item)]))

    return note


def _turn_texts(rendered: str, starts: Sequence[tuple[int, int]], count: int) -> list[str]:
    """The text that each turn adds; text before the first turn of a loop belongs to the first."""
    ends = [0] * count
    for (start, number), (end, _) in pairwise([(0, 0), *starts, (len(rendered), 0)]):
        if end > start:
            ends[number] = end
    ends = [*accumulate(ends[:-1], max), len(rendered)]
    return [rendered[start:end] for start, end in pairwise([0, *ends])]


def _each(value: Any, hide: Callable[[str], str]) -> Any:
    """A JSON value with ``hide`` applied to each text, keys included: tools are untrusted input."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_each(key, hide): _each(item, hide) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(item, hide) for item in value]
    return value


def _text(rendered: str, hidden: Iterable[str]) -> str:
    """The rendered text with the hidden text in place of the placeholders."""
    return "".join(text for text, _ in _pieces(rendered, hidden))


def _pieces(rendered: str, hidden: Iterable[str]) -> list[Piece]:
    literal = [(text, False) for text in hidden]
    if not literal:
        return [(rendered, True)]
    pieces: list[Piece] = []
    end = 0
    for placeholder in matches(_PLACEHOLDER, rendered, _LONGEST_PLACEHOLDER):
        number = int(placeholder[1])
        if number < len(literal):
            if end < placeholder.start():
                pieces.append((rendered[end : placeholder.start()], True))
            pieces.append(literal[number])
            end = placeholder.end()
    if end < len(rendered):
        pieces.append((rendered[end:], True))
    return pieces
