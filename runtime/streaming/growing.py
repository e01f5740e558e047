"""Texts that grow, cleaned and tokenised again from a place that later text cannot change.

Such a place is a *cut*: before a blank that follows a letter, digit or underscore, or before a
full-width punctuation mark that follows a Chinese, Japanese or Korean letter. There

- cleaning falls apart, ``tidy(a + b) == tidy(a) + tidy(b)``: no chat marker has a blank or such a
  mark in it, none ends in a letter, and no run of white space reaches over the cut;
- tokenising falls apart, where ``is_cuttable`` says so: the pre-tokenizer never joins what lies on
  the two sides of a cut, and what it does behind a boundary depends on what lies behind it.
"""

import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from tokenizers import AddedToken, Tokenizer

from layerguard.runtime.text.request import tidy

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
"""Of ``Split`` pre-tokenizers. In none does a match go on over a cut: behind a letter, digit or
underscore only letters, digits, marks, an apostrophe or further punctuation are taken, and looking
ahead is left to runs of white space."""

_NORMAL_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
"""No character behind a cut composes with one before it."""


def is_cuttable(tokenizer: Tokenizer) -> bool:
    """Whether the ids of ``a + b`` are those of ``a`` and those of ``b`` at every cut.

    True of byte-level tokenizers with the patterns that are known here; others may be, too.
    """
    forms = _members(tokenizer.normalizer, "normalizers")
    splits = _members(tokenizer.pre_tokenizer, "pretokenizers")
    return (
        all(part["type"] in _NORMAL_FORMS for part in forms)
        and all(map(_respects_cuts, splits))
        and any(part["type"] == "Split" or part.get("use_regex") for part in splits)
        and all(map(_stays_on_its_side, tokenizer.get_added_tokens_decoder().values()))
    )


def _members(component: Any, name: str) -> list[Any]:
    """The settings of a tokenizer's component, one for each member of a sequence."""
    if component is None:
        return []
    settings = json.loads(component.__getstate__())
    found: list[Any] = settings[name] if settings["type"] == "Sequence" else [settings]
    return found


def _respects_cuts(part: Any) -> bool:
    """Whether a pre-tokenizer joins nothing over a cut, nor looks back over a boundary."""
    if part["type"] in ("ByteLevel", "Digits"):
        return not part.get("add_prefix_space")
    isolates = part.get("behavior") == "Isolated" and not part.get("invert")
    return isolates and part.get("pattern", {}).get("Regex") in _PATTERNS


def _stays_on_its_side(token: AddedToken) -> bool:
    """Special ones are read as text; another one must not reach over a cut."""
    return token.special or not (token.rstrip or CUT.search(token.content))


class GrowingContent:
    """``clean`` of a text that grows; what it costs depends on what is new."""

    def __init__(self) -> None:
        self._raw, self._settled = "", ""
        self._cuts: list[tuple[int, int]] = []

    def update(self, raw: str) -> str:
        """``clean(raw)``, at little cost where ``raw`` begins as the one before."""
        same = common(self._raw, raw)
        while self._cuts and not _holds(raw, self._cuts[-1][0], same):
            self._cuts.pop()
        start, known = self._cuts[-1] if self._cuts else (0, 0)
        self._raw, self._settled = raw, self._settled[:known]
        cut = last_cut(raw, start)
        if cut > start:
            self._settled = (self._settled + tidy(raw[start:cut])).lstrip()
            self._cuts = [*self._cuts[-_CUTS_KEPT:], (cut, len(self._settled))]
        return (self._settled + tidy(raw[cut:])).strip() or " "

    def fork(self) -> "GrowingContent":
        """The same, to be continued apart."""
        other = copy(self)
        other._cuts = list(self._cuts)
        return other


class GrowingIds:
    """The token ids of a text that grows; what they cost depends on what is new.

    Attributes:
        ids: of the text; not to be changed from outside.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], *, cuttable: bool) -> None:
        self._encode, self._cuttable = encode, cuttable
        self.ids: list[int] = []
        self._text = ""
        self._cuts: list[tuple[int, int]] = []

    def update(self, text: str) -> int:
        """Make ``ids`` those of ``text``; gives how many leading ids are known to be unchanged."""
        same = common(self._text, text)
        while self._cuts and not _holds(text, self._cuts[-1][0], same):
            self._cuts.pop()
        start, known = self._cuts[-1] if self._cuts else (0, 0)
        cut = last_cut(text, start) if self._cuttable else start
        settled = self._encode(text[start:cut]) if cut > start else ()
        if cut > start:
            self._cuts = [*self._cuts[-_CUTS_KEPT:], (cut, known + len(settled))]
        self.ids[known:] = [*settled, *self._encode(text[cut:])]
        self._text = text
        return known

    def fork(self) -> "GrowingIds":
        """The same, to be continued apart."""
        other = copy(self)
        other.ids, other._cuts = list(self.ids), list(self._cuts)
        return other


_CUTS_KEPT = 64
"""How far back a text may be taken without being read again from its start, in cuts."""


def common(first: str, second: str) -> int:
    """How many leading characters two texts share."""
    if second.startswith(first):
        return len(first)
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def last_cut(text: str, start: int) -> int:
    """The last cut behind ``start``, or ``start`` where there is none."""
    for match in CUT.finditer(text, start + 1):
        start = match.start()
    return start


def _holds(text: str, cut: int, same: int) -> bool:
    """Whether a cut of an earlier text is one of ``text``, which begins with ``same`` of it."""
    return cut <= same and CUT.match(text, cut) is not None
