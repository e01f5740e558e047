"""A text with one marked passage: an inserted text, or a sentence of the text itself."""

import re
from dataclasses import dataclass

import numpy as np

from layerguard.runtime.rows.jsonl import Place

_BORDER = re.compile(r"(?<=[.!?:;])\s+|\n+")
"""Where a text may be cut: after a sentence or a line."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A text in three parts, which follow each other without anything between them.

    Attributes:
        before: what stands before the passage, with white space at its end.
        words: the passage, without white space around it.
        after: what stands after it, with white space at its beginning.
    """

    before: str
    words: str
    after: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.before + self.words + self.after

    @property
    def place(self) -> Place:
        """Where the passage stands."""
        return len(self.before), len(self.before) + len(self.words)

    @property
    def rest(self) -> str:
        """The text without the passage."""
        return f"{self.before.strip()} {self.after.strip()}".strip()


def insert(document: str, words: str, rng: np.random.Generator) -> Marked:
    """A document with further words at a random place between two sentences, or at an end."""
    ends = [0, *(match.start() for match in _BORDER.finditer(document)), len(document)]
    cut = ends[int(rng.integers(len(ends)))]
    joint = ("\n", " ", "\n\n")[int(rng.integers(3))]
    before, after = document[:cut].rstrip(), document[cut:].lstrip()
    return Marked(before and before + joint, words.strip(), after and joint + after)


def sentence(document: str, rng: np.random.Generator) -> Marked:
    """A document with a random sentence of its own marked."""
    found = _sentences(document) or [(0, len(document))]
    start, end = found[int(rng.integers(len(found)))]
    return Marked(document[:start], document[start:end], document[end:])


def sentences(text: str) -> list[str]:
    """The sentences of a text, without white space around them."""
    return [text[start:end] for start, end in _sentences(text)]


def _sentences(text: str) -> list[Place]:
    borders = [match.span() for match in _BORDER.finditer(text)]
    starts, ends = [0, *(end for _, end in borders)], [*(start for start, _ in borders), len(text)]
    return [
        (start + len(part) - len(part.lstrip()), start + len(part.rstrip()))
        for start, end in zip(starts, ends, strict=True)
        if (part := text[start:end]).strip()
    ]
