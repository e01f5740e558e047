"""Incremental cleaning and tokenisation of a text that grows.

Only the text after the last *cut* is processed again. A cut is a position before a blank that
follows a letter, digit or underscore, or before a full-width punctuation mark that follows a
Chinese, Japanese or Korean letter. At a cut

- cleaning can be split, ``tidy(a + b) == tidy(a) + tidy(b)``: no chat marker contains a blank or
  such a punctuation mark, no chat marker ends in a letter, and no run of white space crosses a cut;
- tokenisation can be split if ``is_cuttable`` says so: the pre-tokenizer never joins text from
  both sides of a cut, and never looks back over a boundary.
"""

import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from tokenizers import AddedToken, Tokenizer

from layerguard.runtime.text.request import tidy
from layerguard.runtime.text.shared_prefix import shared_prefix

CUT = re.compile(
    r"(?<=\w) |(?<=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3])[，。、！？；：]"  # noqa: RUF001
)

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CASED = (rf"{_LEAD}[{_UPPER}]*[{_LOWER}]+", rf"{_LEAD}[{_UPPER}]+[{_LOWER}]*")
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "|".join(parts)
    for parts in (
        # Llama 3 and GPT-4; Qwen 2 and 3; Qwen 3.5; GPT-4o; Mistral's Tekken
        (_CONTRACTION, rf"{_LEAD}\p{{L}}+", r"\p{N}{1,3}", _SIGNS, _BLANKS),
        (_CONTRACTION, rf"{_LEAD}\p{{L}}+", r"\p{N}", _SIGNS, _BLANKS),
        (_CONTRACTION, rf"{_LEAD}[\p{{L}}\p{{M}}]+", r"\p{N}",
         r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", _BLANKS),
        (*(f"{word}{_CONTRACTION}?" for word in _CASED), r"\p{N}{1,3}",
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*", _BLANKS),
        (*_CASED, r"\p{N}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", _BLANKS),
    )
}  # fmt: skip
"""Known patterns of ``Split`` pre-tokenizers. In each of them, no match crosses a cut: after a
letter, digit or underscore they match only letters, digits, marks, an apostrophe or further
punctuation, and only runs of white space use a lookahead."""

_NORMAL_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
"""Normal forms that respect cuts: no character after a cut composes with a character before it."""


def is_cuttable(tokenizer: Tokenizer) -> bool:
    """Whether the ids of ``a + b`` are the ids of ``a`` followed by those of ``b`` at every cut.

    True for byte-level tokenizers with the patterns listed in this module. False means unknown.
    """
    forms = _members(tokenizer.normalizer, "normalizers")
    splits = _members(tokenizer.pre_tokenizer, "pretokenizers")
    return (
        all(part["type"] in _NORMAL_FORMS for part in forms)
        and all(map(_respects_cuts, splits))
        and any(part["type"] == "Split" or part.get("use_regex") for part in splits)
        and all(map(_never_crosses_cut, tokenizer.get_added_tokens_decoder().values()))
    )


def _members(component: Any, name: str) -> list[Any]:
    """The settings of a tokenizer component: one entry for each member of a ``Sequence``."""
    if component is None:
        return []
    settings = json.loads(component.__getstate__())
    members: list[Any] = settings[name] if settings["type"] == "Sequence" else [settings]
    return members


def _respects_cuts(part: Any) -> bool:
    """Whether a pre-tokenizer never joins text across a cut and never looks back over one."""
    if part["type"] in ("ByteLevel", "Digits"):
        return not part.get("add_prefix_space")
    isolates = part.get("behavior") == "Isolated" and not part.get("invert")
    return isolates and part.get("pattern", {}).get("Regex") in _PATTERNS


def _never_crosses_cut(token: AddedToken) -> bool:
    """Whether an added token respects cuts; special tokens do, because they are read as text."""
    return token.special or not (token.rstrip or CUT.search(token.content))


class GrowingContent:
    """Incremental ``clean``: the cost depends on the new text only."""

    def __init__(self) -> None:
        self._raw, self._stable = "", ""
        self._cuts: list[tuple[int, int]] = []

    def update(self, raw: str) -> str:
        """Return ``clean(raw)``; cheap if ``raw`` starts with the previous text."""
        same = shared_prefix(self._raw, raw)
        while self._cuts and not _holds(raw, self._cuts[-1][0], same):
            self._cuts.pop()
        start, known = self._cuts[-1] if self._cuts else (0, 0)
        self._raw, self._stable = raw, self._stable[:known]
        cut = last_cut(raw, start)
        if cut > start:
            self._stable = (self._stable + tidy(raw[start:cut])).lstrip()
            self._cuts = [*self._cuts[-_CUTS_KEPT:], (cut, len(self._stable))]
        return (self._stable + tidy(raw[cut:])).strip() or " "

    def fork(self) -> "GrowingContent":
        """An independent copy."""
        other = copy(self)
        other._cuts = list(self._cuts)
        return other


class GrowingIds:
    """Incremental tokenisation: the cost depends on the new text only.

    Attributes:
        ids: token ids of the text. Read-only for callers.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], *, cuttable: bool) -> None:
        self._encode, self._cuttable = encode, cuttable
        self.ids: list[int] = []
        self._text = ""
        self._cuts: list[tuple[int, int]] = []

    def update(self, text: str) -> int:
        """Set ``ids`` to those of ``text``.

        Returns:
            The number of leading ids that are known to be unchanged.
        """
        same = shared_prefix(self._text, text)
        while self._cuts and not _holds(text, self._cuts[-1][0], same):
            self._cuts.pop()
        start, known = self._cuts[-1] if self._cuts else (0, 0)
        cut = last_cut(text, start) if self._cuttable else start
        stable = self._encode(text[start:cut]) if cut > start else ()
        if cut > start:
            self._cuts = [*self._cuts[-_CUTS_KEPT:], (cut, known + len(stable))]
        self.ids[known:] = [*stable, *self._encode(text[cut:])]
        self._text = text
        return known

    def fork(self) -> "GrowingIds":
        """An independent copy."""
        other = copy(self)
        other.ids, other._cuts = list(self.ids), list(self._cuts)
        return other


_CUTS_KEPT = 64
"""Number of cuts kept. A rollback beyond them processes the text again from its start."""


def last_cut(text: str, start: int) -> int:
    """The last cut after ``start``, or ``start`` if there is none."""
    for match in CUT.finditer(text, start + 1):
        start = match.start()
    return start


def _holds(text: str, cut: int, same: int) -> bool:
    """Whether a cut of the previous text is a cut of ``text``; they share ``same`` characters."""
    return cut <= same and CUT.match(text, cut) is not None
