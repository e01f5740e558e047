"""From a request to windows of token ids, by the bundle's text rules."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import TOKENIZER
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.template import Piece, Template
from layerguard.runtime.types import View

Ids = tuple[int, ...]

_OVERLAP = 4
"""Sliding windows share one fourth of their tokens, so that no phrase is cut in both."""


@dataclass(frozen=True, slots=True)
class Windows:
    """One view of one request: windows of ids, tokens in all, and whether any were left out."""

    windows: tuple[Ids, ...]
    tokens: int
    truncated: bool


class TokenReader:
    """The tokenizer of a bundle with its template and window rules; thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        self._rules = bundle.manifest.text
        self._folder = bundle.path
        path = bundle.path / TOKENIZER
        try:
            self._literal: Tokenizer = Tokenizer.from_file(str(path))
            self._active: Tokenizer = Tokenizer.from_file(str(path))
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

    def read(self, request: Request, views: Collection[View]) -> dict[View, Windows]:
        """The windows of a request in each of the views.

        Raises:
            InputError: the chat template refuses the messages.
        """
        pieces: dict[View, list[Piece]] = {}
        if "content" in views:
            pieces["content"] = [(request.content(), False)]
        if "prompt" in views:
            pieces["prompt"] = self._template.render(request)
            if pieces.get("content") == pieces["prompt"]:  # the common case: tokenise it once
                both = self._windows("content", pieces["content"])
                return {"content": both, "prompt": both}
        return {view: self._windows(view, parts) for view, parts in pieces.items()}

    def _frame(self) -> tuple[Ids, Ids]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare = self._encode(self._literal, "a")
        framed = self._encode(self._literal, "a", framed=True)
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return tuple(framed[:start]), tuple(framed[start + len(bare) :])
        return (), ()

    def _encode(self, tokenizer: Tokenizer, text: str, *, framed: bool = False) -> list[int]:
        try:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=framed).ids
        except BaseException as error:  # a panic of the tokenizers package is no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            fault = f"{TOKENIZER} fails on a text ({error}); export the model again"
            raise BundleError(self._folder, [fault]) from error
        return ids

    def _windows(self, view: View, pieces: Sequence[Piece]) -> Windows:
        rules = self._rules
        ids: list[int] = []
        for text, active in pieces:
            tokenizer = self._active if active else self._literal
            ids += self._encode(tokenizer, text)
        before, after = self._before, self._after
        if view == "prompt" and self._template.is_chat:
            # a chat ends where the answer begins; some templates write what opens it, others not
            opened = tuple(ids[: len(before)]) == before
            before, after = () if opened else before, ()
        room = rules.max_tokens - len(before) - len(after)
        tokens = len(ids) + len(before) + len(after)
        truncated = False
        if len(ids) <= room:
            parts = [tuple(ids)]
        elif rules.windows == "head-tail":
            parts, truncated = [(*ids[: room // 2], *ids[len(ids) - (room - room // 2) :])], True
        else:
            step = room - room // _OVERLAP
            starts = range(0, len(ids) - room + step, step)
            truncated = len(starts) > rules.max_windows
            parts = [tuple(ids[start : start + room]) for start in starts[: rules.max_windows]]
        framed = tuple((*before, *part, *after) or (rules.pad_token_id,) for part in parts)
        return Windows(framed, tokens, truncated)
