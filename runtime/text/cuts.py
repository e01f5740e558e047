"""Places at which a text can be cut so that its parts have the tokens of the whole.

A cut is a position before a blank that follows a letter, digit or underscore, or before a
full-width punctuation mark that follows a Chinese, Japanese or Korean letter. Tokenisation can be
split there if ``is_cuttable`` says so: the pre-tokenizer never joins text from both sides of a cut,
and never looks back over a boundary.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer

CUT = re.compile(
    r"(?<=\w) |(?<=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3])[，。、！？；：]"  # noqa: RUF001
)

_SLICE = 1 << 12
"""Characters that are looked at in one call of a pattern, which holds up all threads."""

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

_NORMAL_FORMS = {"NFC", "NFD", "NFKC", "NFKD", "BertNormalizer"}
"""Normal forms that respect cuts: no character after a cut composes with a character before it."""

_SPLITS_AT_BLANKS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""Pre-tokenizers that drop white space, so that no word contains any."""


def is_cuttable(tokenizer: Tokenizer) -> bool:
    """Whether the ids of ``a + b`` are the ids of ``a`` followed by those of ``b`` at every cut.

    True for byte-level tokenizers with the patterns listed in this module, and for those that split
    at white space. False means unknown.
    """
    forms = _members(tokenizer.normalizer, "normalizers")
    splits = _members(tokenizer.pre_tokenizer, "pretokenizers")
    return (
        all(part["type"] in _NORMAL_FORMS for part in forms)
        and all(map(_respects_cuts, splits))
        and any(map(_splits_words, splits))
        and all(map(_never_crosses_cut, tokenizer.get_added_tokens_decoder().values()))
    )


def _members(component: Any, name: str) -> list[Any]:
    """The settings of a tokenizer component: one entry for each member of a ``Sequence``."""
    if component is None:
        return []
    settings = json.loads(component.__getstate__())
    members: list[Any] = settings[name] if settings["type"] == "Sequence" else [settings]
    return members


def _splits_words(part: Any) -> bool:
    return part["type"] in {"Split", *_SPLITS_AT_BLANKS} or bool(part.get("use_regex"))


def _respects_cuts(part: Any) -> bool:
    """Whether a pre-tokenizer never joins text across a cut and never looks back over one."""
    if part["type"] in _SPLITS_AT_BLANKS:
        return True
    if part["type"] in ("ByteLevel", "Digits"):
        return not part.get("add_prefix_space")
    isolates = part.get("behavior") == "Isolated" and not part.get("invert")
    return isolates and part.get("pattern", {}).get("Regex") in _PATTERNS


def _never_crosses_cut(token: AddedToken) -> bool:
    """Whether an added token respects cuts; special tokens do, because they are read as text."""
    return token.special or not (token.rstrip or CUT.search(token.content))


def last_cut(text: str, start: int) -> int:
    """The last cut after ``start``, or ``start`` if there is none."""
    for match in CUT.finditer(text, start + 1):
        start = match.start()
    return start


def cut_apart(text: str, size: int, at: re.Pattern[str] = CUT) -> Iterator[str]:
    """The parts of a text between cuts that are at least ``size`` characters apart.

    ``at`` matches the character after a cut, and nothing beyond it.
    """
    start = 0
    while len(text) - start > size:
        cut = next(matches(at, text, 1, start + size), None)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def matches(
    pattern: re.Pattern[str], text: str, longest: int, start: int = 0
) -> Iterator[re.Match[str]]:
    """What ``pattern.finditer(text, start)`` gives; other threads take turns while it looks.

    Args:
        pattern: without lookahead.
        text: where to look.
        longest: most characters of a match, at least 1.
        start: the first character of the first match may not be before it.
    """
    while start < len(text):
        end = start + _SLICE
        for match in pattern.finditer(text, start, end + longest - 1):
            if match.start() >= end:
                break
            start = match.end()
            yield match
        start = max(start, end)
