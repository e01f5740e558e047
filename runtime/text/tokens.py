"""Turns a request into windows of token ids, by the bundle's text rules."""

import itertools
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tokenizers import Encoding, Tokenizer

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import TOKENIZER
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.limits import Limits
from layerguard.runtime.text.cuts import CUT, cut_apart, is_cuttable
from layerguard.runtime.text.leaves import Leaf, Path, not_written
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.roles import ASSISTANT, USER, token_roles
from layerguard.runtime.text.template import Piece, Template
from layerguard.runtime.types import TokenBudget, TokenSource, View

Ids = tuple[int, ...]

Places = tuple[tuple[int, int], ...]
"""For each token the offsets of its first character and after its last one."""

T = TypeVar("T")

_AT_ONCE = 1 << 14
"""Characters that are tokenised at once if a text can be cut. The tokenizer needs about 400 bytes
for each."""

_ALONE = 1 << 11
"""Characters that are tokenised while all other threads wait; for so few, giving way costs more."""

_SHORT, _KEPT = 64, 1_000
"""Most characters of a piece whose tokens are kept while a view is read, and most such pieces."""

_MOST_UNREAD = 100
"""Most strings that are looked for in vain, which takes a search of the whole view for each."""

_OVERLAP = 4
"""Adjacent sliding windows share one fourth of their tokens, so that a phrase that is cut in one
window is whole in the other."""

WindowSlices = tuple[slice, ...]
"""The slices of a text's tokens that one window contains."""


@dataclass(frozen=True, slots=True)
class Windows:
    """One view of one request.

    Attributes:
        windows: token ids of each window.
        tokens: number of tokens of the view, before truncation.
        truncated: whether some tokens are in no window.
        roles: conversation view only: for each window one byte per token, an index in ``ROLES``.
    """

    windows: tuple[Ids, ...]
    tokens: int
    truncated: bool
    roles: tuple[bytes, ...] = ()


class TokenReader:
    """The tokenizer of a bundle, with its template and window rules. Thread-safe.

    Attributes:
        limits: the largest request that it reads; larger ones are shortened or refused. They are
            the bundle's, until a guard is loaded with others.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._rules = bundle.manifest.text
        self.limits: Limits = self._rules.limits
        self._folder = bundle.path
        data = bundle.read(TOKENIZER)
        try:
            source = data.decode()
            self._literal: Tokenizer = Tokenizer.from_str(source)
            self._active: Tokenizer = Tokenizer.from_str(source)
        except Exception as error:  # the tokenizers package raises bare Exception
            fault = f"{TOKENIZER} is not a tokenizer ({error}); export the model again"
            raise BundleError(bundle.path, [fault]) from error
        self._literal.encode_special_tokens = True  # reads special tokens as plain text
        added = self._active.get_added_tokens_decoder().values()
        self._cuttable = [self._literal] if is_cuttable(self._literal) else []
        if self._cuttable and not any(CUT.search(f"{token.content} ") for token in added):
            self._cuttable.append(self._active)
        try:
            self._template = Template(
                self._rules.template,
                bundle.chat_template,
                self._rules.special_tokens,
                [token.content for token in added if token.special],
                self._rules.rules_version,
            )
        except InputError as error:
            raise BundleError(bundle.path, [str(error)]) from error
        self._before, self._after = self._frame()
        frame = len(self._before) + len(self._after)
        if frame >= self._rules.max_tokens:
            fault = (
                f"{TOKENIZER} puts {frame} special tokens around a text; expected fewer than "
                f"text.max_tokens, {self._rules.max_tokens}: export the model again"
            )
            raise BundleError(bundle.path, [fault])

    def read_sources(
        self, request: Request, sources: Collection[TokenSource]
    ) -> dict[TokenSource, Windows]:
        """The windows of a request for each source; see ``read``.

        Raises:
            InputError: the request is beyond the limits, or as ``read``.
        """
        request = request.within(self.limits)
        views_by_budget: dict[TokenBudget | None, set[View]] = {}
        for view, budget in sources:
            views_by_budget.setdefault(budget, set()).add(view)
        return {
            (view, budget): windows
            for budget, views in views_by_budget.items()
            for view, windows in self.read(request, views, budget).items()
        }

    def read(
        self, request: Request, views: Collection[View], budget: TokenBudget | None = None
    ) -> dict[View, Windows]:
        """The windows of a request in each of the views.

        Args:
            request: the request to check.
            views: the views to tokenise.
            budget: token budget of each view; None takes it from the bundle's text rules.

        Raises:
            InputError: the chat template refuses the messages, or a view has more tokens than the
                limits allow, and such requests are refused.
        """
        found: dict[View, Windows] = {}
        texts = self.contents(request) if "content" in views else ()
        if "conversation" in views:
            found["conversation"] = self._conversation(request, budget)
        if "trajectory" in views:
            pieces = self._template.render_trajectory(request)
            found["trajectory"] = self._windows("trajectory", pieces, budget)
        if texts:
            found["content"] = self._content(texts, budget)
        if "prompt" in views:
            pieces = self._template.render(request)
            is_content = pieces == [(text, False) for text in texts]
            found["prompt"] = (  # tokenise only once
                found["content"] if is_content else self._windows("prompt", pieces, budget)
            )
        if not request.is_cut:
            return found
        return {view: replace(windows, truncated=True) for view, windows in found.items()}

    def unread(self, request: Request, views: Collection[View]) -> tuple[Path, ...]:
        """The parts of a request that none of the views contains, in their order.

        The view ``content`` contains all text. Any other contains what its template writes: a
        string counts as read if it is written, as it is or as in JSON. If ``prompt`` is the only
        view, answers are not looked for. At most a hundred parts are named.

        Raises:
            InputError: the chat template refuses the messages.
        """
        if request.messages is None:
            return ()
        if set(views) == {"prompt"}:
            request = replace(request, messages=request.prompt_turns)
        found: Iterable[Leaf] = request.leaves()
        if "content" in views:
            found = (leaf for leaf in found if leaf.text is None)
        else:
            found = not_written(found, self._written(request, views))
        return tuple(dict.fromkeys(leaf.path for leaf in itertools.islice(found, _MOST_UNREAD)))

    def _written(self, request: Request, views: Collection[View]) -> str:
        """The texts of the views other than ``content``."""
        pieces: list[Piece] = []
        if {"prompt", "conversation"} & set(views):
            pieces += self._template.render(request)
        if "conversation" in views:
            pieces.append((f"\n{request.answer}", False))
        if "trajectory" in views:
            pieces += self._template.render_trajectory(request)
        return "".join(text for text, _ in pieces)

    def contents(self, request: Request) -> tuple[str, ...]:
        """The texts of the view ``content``; see ``Request.contents``."""
        return request.contents(newest=self._rules.rules_version > 2)

    def places(
        self, request: Request, budget: TokenBudget | None = None
    ) -> tuple[tuple[str, Places], ...]:
        """For each window of the view ``content`` its text, and where in it the tokens are.

        Special tokens around the text have an empty place at its start or end.
        """
        found = []
        for text in self.contents(request.within(self.limits)):
            known = self.text_places(text)
            slices, _ = self._slices(len(known), self._before, self._after, budget)
            before = ((0, 0),) * len(self._before)
            after = ((len(text), len(text)),) * len(self._after)
            found += [(text, (*before, *_kept(known, window), *after)) for window in slices]
        return tuple(found)

    def text_places(self, text: str) -> Places:
        """Where the tokens of a text are, without special tokens around it."""
        found = self._encodings(self._literal, text)
        return tuple((start + a, start + b) for start, part in found for a, b in part.offsets)

    @property
    def frame(self) -> tuple[Ids, Ids]:
        """The special tokens that the tokenizer puts before and after a text."""
        return self._before, self._after

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that reads special tokens as text. Read-only for callers."""
        return self._literal

    def literal(self, text: str) -> Ids:
        """The ids of a text, without special tokens around it and with none parsed inside it."""
        return tuple(id_ for _, part in self._encodings(self._literal, text) for id_ in part.ids)

    def spell(self, token: int) -> str:
        """The text of a token; special tokens are shown."""
        text: str = self._literal.decode([token], skip_special_tokens=False)
        return text

    def _frame(self) -> tuple[Ids, Ids]:
        """Find the special tokens that the tokenizer puts before and after a text."""
        bare = self._encoding(self._literal, "a").ids
        framed = self._encoding(self._literal, "a", framed=True).ids
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return tuple(framed[:start]), tuple(framed[start + len(bare) :])
        return (), ()

    def _encodings(self, tokenizer: Tokenizer, text: str) -> Iterator[tuple[int, Encoding]]:
        """The tokens of a text's parts, each with its place in the text.

        A long text is cut apart where this does not change its tokens, so that the memory for each
        part is freed before the next.
        """
        if len(text) <= _AT_ONCE or tokenizer not in self._cuttable:
            yield 0, self._encoding(tokenizer, text)
            return
        start = 0
        for part in cut_apart(text, _AT_ONCE):
            yield start, self._encoding(tokenizer, part)
            start += len(part)

    def _pieces(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Encoding]]:
        """The tokens of pieces, each part with its place in the text of all of them.

        A short piece is tokenised once: a text may spell one special token many thousand times.
        """
        known: dict[Piece, Encoding] = {}
        start = 0
        for piece in pieces:
            text, active = piece
            tokenizer = self._active if active else self._literal
            if len(text) > _SHORT:
                for place, encoding in self._encodings(tokenizer, text):
                    yield start + place, encoding
            else:
                short = known.get(piece)
                if short is None:
                    short = self._encoding(tokenizer, text)
                    if len(known) < _KEPT:
                        known[piece] = short
                yield start, short
            start += len(text)

    def _encoding(self, tokenizer: Tokenizer, text: str, *, framed: bool = False) -> Encoding:
        try:
            if len(text) > _ALONE:  # unlike ``encode``, it lets other threads run
                return tokenizer.encode_batch([text], add_special_tokens=framed)[0]
            return tokenizer.encode(text, add_special_tokens=framed)
        except BaseException as error:  # the tokenizers package panics with a BaseException
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            fault = f"{TOKENIZER} fails on a text ({error}); export the model again"
            raise BundleError(self._folder, [fault]) from error

    def _frame_of_prompt(self, ids: Sequence[int]) -> tuple[Ids, Ids]:
        """The special tokens to add around a prompt.

        A chat template writes its own special tokens, so nothing is added, as in
        ``apply_chat_template``. Version 1 of the text rules adds the tokenizer's opening tokens if
        the template does not write them. The trajectory view does not use this function: its
        published heads were trained with the tokenizer's special tokens around the chat.
        """
        if not self._template.is_chat:
            return self._before, self._after
        if self._rules.rules_version > 1:
            return (), ()
        opened = tuple(ids[: len(self._before)]) == self._before
        return () if opened else self._before, ()

    def _windows(self, view: View, pieces: Sequence[Piece], budget: TokenBudget | None) -> Windows:
        ids = _numbers()
        for _, encoding in self._pieces(pieces):
            ids.extend(encoding.ids)
        prompt = view == "prompt"
        before, after = self._frame_of_prompt(ids) if prompt else (self._before, self._after)
        slices, truncated = self._slices(len(ids), before, after, budget)
        windows = tuple(
            (*before, *_kept(ids, window), *after) or (self._rules.pad_token_id,)
            for window in slices
        )
        return Windows(windows, len(before) + len(ids) + len(after), truncated)

    def _content(self, texts: Sequence[str], budget: TokenBudget | None) -> Windows:
        """The windows of each plain text of a request."""
        found = [self._windows("content", [(text, False)], budget) for text in texts]
        return Windows(
            tuple(window for text in found for window in text.windows),
            max(text.tokens for text in found),
            any(text.truncated for text in found),
        )

    def _conversation(self, request: Request, budget: TokenBudget | None) -> Windows:
        """The prompt view's tokens, then the answer's; opening tokens start every window."""
        parts = self._template.owners(request)
        ids, ends = _numbers(), _numbers()
        for place, encoding in self._pieces(self._template.render(request)):
            ids.extend(encoding.ids)
            if len(parts) > 1:
                ends.extend([place + end for _, end in encoding.offsets])
        roles = token_roles(ends, parts) if ends else bytes([parts[-1][1]]) * len(ids)
        before, after = self._frame_of_prompt(ids)
        answer = self.literal(request.answer) if request.answer else ()
        ids.extend((*after, *answer))
        roles += bytes([parts[-1][1]]) * len(after) + bytes([ASSISTANT]) * len(answer)
        opening = bytes([parts[0][1]]) * len(before)
        if not before and not ids:
            ids.append(self._rules.pad_token_id)
            roles = bytes([USER])
        slices, truncated = self._slices(len(ids), before, (), budget)
        return Windows(
            tuple((*before, *_kept(ids, window)) for window in slices),
            len(before) + len(ids),
            truncated,
            tuple(opening + bytes(_kept(roles, window)) for window in slices),
        )

    def _slices(
        self, count: int, before: Ids, after: Ids, budget: TokenBudget | None
    ) -> tuple[list[WindowSlices], bool]:
        """The slices of ``count`` tokens for each window, and whether some tokens are left out.

        Raises:
            InputError: there are more tokens than the limits allow, and such texts are refused.
        """
        rules, limits = self._rules, self.limits
        if limits.beyond == "refuse":
            limits.check_count("tokens", count + len(before) + len(after))
        keep = budget.keep if budget else rules.windows
        most = min(budget.max_tokens if budget else rules.max_tokens, limits.tokens)
        size = max(0, most - len(before) - len(after))
        if count <= size:
            return [(slice(count),)], False
        if keep == "head":
            return [(slice(size),)], True
        if keep == "head-tail":  # as published: the special tokens count
            head = max(0, most // 2 - len(before))
            return [(slice(head), slice(count - (size - head), count))], True
        step = size - size // _OVERLAP
        starts = range(0, count - size + step, step)
        most_windows = rules.max_windows
        if budget:  # shorter windows, and as many tokens
            most_windows = rules.max_windows * rules.max_tokens // most
        kept = starts[: max(1, min(most_windows, limits.tokens // most))]
        return [(slice(start, start + size),) for start in kept], len(kept) < len(starts)


def _numbers() -> "array[int]":
    """An empty array, for ids or offsets; unlike a list, it does not hold an object for each."""
    return array("I")


def _kept(values: Sequence[T], slices: WindowSlices) -> Iterator[T]:
    """The values in the slices, in order."""
    return itertools.chain.from_iterable(values[part] for part in slices)
