"""Incremental cleaning and tokenisation of a text that grows.

Only the text after the last *cut* is processed again; see ``text/cuts.py``. At a cut, cleaning can
be split, too, ``tidy(a + b) == tidy(a) + tidy(b)``: no chat marker contains a blank or such a
punctuation mark, no chat marker ends in a letter, and no run of white space crosses a cut.
"""

from collections.abc import Callable, Sequence
from copy import copy

from layerguard.runtime.text.cuts import CUT, last_cut
from layerguard.runtime.text.request import tidy
from layerguard.runtime.text.shared_prefix import shared_prefix


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


def _holds(text: str, cut: int, same: int) -> bool:
    """Whether a cut of the previous text is a cut of ``text``; they share ``same`` characters."""
    return cut <= same and CUT.match(text, cut) is not None
