"""From a request to windows of token ids, by the bundle's text rules."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import TOKENIZER
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.roles import ASSISTANT, USER, token_roles
from layerguard.runtime.text.template import Piece, Template
from layerguard.runtime.types import Limit, Source, View

Ids = tuple[int, ...]

_OVERLAP = 4
"""Sliding windows share one fourth of their tokens, so that no phrase is cut in both."""

Cut = tuple[slice, ...]
"""The parts of a text's tokens that one window keeps."""


@dataclass(frozen=True, slots=True)
class Windows:
    """One view of one request: windows of ids, tokens in all, and whether any were left out."""

    windows: tuple[Ids, ...]
    tokens: int
    truncated: bool
    roles: tuple[bytes, ...] = ()
    """Of the conversation view: a byte for each token of each window, an index in ``ROLES``."""


class TokenReader:
    """The tokenizer of a bundle with its template and window rules; thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        self._rules = bundle.manifest.text
        self._folder = bundle.path
        path = bundle.path / TOKENIZER
        try:
            source = path.read_text(encoding="utf-8")
            self._literal: Tokenizer = Tokenizer.from_str(source)
            self._active: Tokenizer = Tokenizer.from_str(source)
        except Exception as error:  # the tokenizers package raises bare Exception
            fault = f"{TOKENIZER} is not a tokenizer ({error}); export the model again"
            raise BundleError(bundle.path, [fault]) from error
        self._literal.encode_special_tokens = True  # typed by a user: text, never a special token
        added = self._active.get_added_tokens_decoder().values()
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
                f"{TOKENIZER} puts {frame} special tokens around a text; text.max_tokens, "
                f"{self._rules.max_tokens}, leaves no room between them: export the model again"
            )
            raise BundleError(bundle.path, [fault])

    def read_sources(self, request: Request, sources: Collection[Source]) -> dict[Source, Windows]:
        """The windows of a request from each of the sources; see ``read``."""
        views_by_limit: dict[Limit | None, set[View]] = {}
        for view, limit in sources:
            views_by_limit.setdefault(limit, set()).add(view)
        return {
            (view, limit): found
            for limit, views in views_by_limit.items()
            for view, found in self.read(request, views, limit).items()
        }

    def read(
        self, request: Request, views: Collection[View], limit: Limit | None = None
    ) -> dict[View, Windows]:
        """The windows of a request in each of the views.

        Args:
            request: what is to be judged.
            views: how it is laid out.
            limit: how much of it is read; None: what the bundle's text rules say.

        Raises:
            InputError: the chat template refuses the messages.
        """
        if "conversation" in views:
            rest = self.read(request, set(views) - {"conversation"}, limit)
            return {**rest, "conversation": self._conversation(request, limit)}
        pieces: dict[View, list[Piece]] = {}
        if "trajectory" in views:
            pieces["trajectory"] = self._template.render_trajectory(request)
        if "content" in views:
            pieces["content"] = [(request.content(), False)]
        if "prompt" in views:
            pieces["prompt"] = self._template.render(request)
            if len(views) == 2 and pieces.get("content") == pieces["prompt"]:
                both = self._windows("content", pieces["content"], limit)  # the common case:
                return {"content": both, "prompt": both}  # tokenise it once
        return {view: self._windows(view, parts, limit) for view, parts in pieces.items()}

    @property
    def frame(self) -> tuple[Ids, Ids]:
        """The special tokens before and after a text."""
        return self._before, self._after

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that reads special tokens as text; not to be changed."""
        return self._literal

    def literal(self, text: str) -> Ids:
        """The ids of a text alone: nothing around it, and what spells a special token is text."""
        return tuple(self._encode(self._literal, text))

    def spell(self, token: int) -> str:
        """A token as a person reads it; special ones are shown."""
        text: str = self._literal.decode([token], skip_special_tokens=False)
        return text

    def _frame(self) -> tuple[Ids, Ids]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare = self._encode(self._literal, "a")
        framed = self._encode(self._literal, "a", framed=True)
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return tuple(framed[:start]), tuple(framed[start + len(bare) :])
        return (), ()

    def _encode(self, tokenizer: Tokenizer, text: str, *, framed: bool = False) -> list[int]:
        ids: list[int] = self._encoding(tokenizer, text, framed=framed).ids
        return ids

    def _encoding(self, tokenizer: Tokenizer, text: str, *, framed: bool = False) -> Encoding:
        try:
            return tokenizer.encode(text, add_special_tokens=framed)
        except BaseException as error:  # a panic of the tokenizers package is no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            fault = f"{TOKENIZER} fails on a text ({error}); export the model again"
            raise BundleError(self._folder, [fault]) from error

    def _frame_of_prompt(self, ids: Sequence[int]) -> tuple[Ids, Ids]:
        """The special tokens around a prompt.

        A chat template writes its own, as ``apply_chat_template`` has it; nothing is added. By the
        first version of the text rules what opens a text is added where the template does not
        write it. The trajectory view has the tokenizer's frame around the rendered chat: so its
        published heads were trained.
        """
        if not self._template.is_chat:
            return self._before, self._after
        if self._rules.rules_version > 1:
            return (), ()
        opened = tuple(ids[: len(self._before)]) == self._before
        return () if opened else self._before, ()

    def _windows(self, view: View, pieces: Sequence[Piece], limit: Limit | None) -> Windows:
        ids: list[int] = []
        for text, active in pieces:
            ids += self._encode(self._active if active else self._literal, text)
        prompt = view == "prompt"
        before, after = self._frame_of_prompt(ids) if prompt else (self._before, self._after)
        cuts, truncated = self._cuts(len(ids), before, after, limit)
        windows = tuple(
            (*before, *_kept(ids, cut), *after) or (self._rules.pad_token_id,) for cut in cuts
        )
        return Windows(windows, len(before) + len(ids) + len(after), truncated)

    def _conversation(self, request: Request, limit: Limit | None) -> Windows:
        """The prompt view's tokens, then the answer's; what opens a text is in every window."""
        parts = self._template.owners(request)
        ids: list[int] = []
        ends: list[int] = []
        start = 0
        for text, active in self._template.render(request):
            found = self._encoding(self._active if active else self._literal, text)
            ids += found.ids
            if len(parts) > 1:
                ends += [start + end for _, end in found.offsets]
            start += len(text)
        roles = token_roles(ends, parts) if ends else bytes([parts[-1][1]]) * len(ids)
        before, after = self._frame_of_prompt(ids)
        answer = self.literal(request.answer) if request.answer else ()
        ids += (*after, *answer)
        roles += bytes([parts[-1][1]]) * len(after) + bytes([ASSISTANT]) * len(answer)
        opening = bytes([parts[0][1]]) * len(before)
        if not before and not ids:
            ids, roles = [self._rules.pad_token_id], bytes([USER])
        cuts, truncated = self._cuts(len(ids), before, (), limit)
        return Windows(
            tuple((*before, *_kept(ids, cut)) for cut in cuts),
            len(before) + len(ids),
            truncated,
            tuple(opening + bytes(_kept(roles, cut)) for cut in cuts),
        )

    def _cuts(
        self, count: int, before: Ids, after: Ids, limit: Limit | None
    ) -> tuple[list[Cut], bool]:
        """What each window keeps of ``count`` tokens within a frame; whether any are left out."""
        rules = self._rules
        keep, most = (limit.keep, limit.max_tokens) if limit else (rules.windows, rules.max_tokens)
        room = max(0, most - len(before) - len(after))
        if count <= room:
            return [(slice(count),)], False
        if keep == "head":
            return [(slice(room),)], True
        if keep == "head-tail":  # as published: the frame counts
            head = max(0, most // 2 - len(before))
            return [(slice(head), slice(count - (room - head), count))], True
        step = room - room // _OVERLAP
        starts = range(0, count - room + step, step)
        kept = starts[: rules.max_windows]
        return [(slice(start, start + room),) for start in kept], len(kept) < len(starts)


def _kept(values: Sequence[int], cut: Cut) -> Iterator[int]:
    """What a cut keeps, in order."""
    return itertools.chain.from_iterable(values[part] for part in cut)
