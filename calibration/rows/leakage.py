"""Leave out rows that share a text with test files, in training and calibration."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from layerguard.calibration.rows.sources import RowSources, read_sources
from layerguard.runtime.rows.jsonl import Row

_ESCAPES = re.compile(r"""\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[\\"'bfnrt])|&[a-z#x0-9]+;""")
"""Characters as JSON, Python and HTML write them."""


@dataclass(frozen=True, slots=True)
class TestTexts:
    """Normalised texts of the test files, and one message for each unused row."""

    __test__ = False  # pytest: not a class of tests

    texts: frozenset[str]
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "TestTexts":
        """The texts of the rows."""
        return cls(frozenset(key for row in rows for key in _keys(row)))

    @classmethod
    def read(cls, sources: RowSources) -> "TestTexts":
        """Read the texts of the good rows.

        Raises:
            InputError: a file cannot be opened, or has no good row.
        """
        read = read_sources(sources)
        return cls(cls.of(read.good).texts, read.faults)

    def without(self, rows: Iterable[Row]) -> tuple[Row, ...]:
        """The rows whose prompt and whole text both do not occur in the test files."""
        return tuple(row for row in rows if self.texts.isdisjoint(_keys(row)))


def normalised(text: str) -> str:
    """``text`` in NFKC, case-folded, with single spaces; equal for nearly identical texts."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_group(text: str) -> str:
    """The normalised letters and digits of ``text``, equal for text as it is, in JSON and HTML.

    Except where the text itself shows escapes, such as a backslash before ``n``.
    """
    return normalised(re.sub(r"\W", " ", _ESCAPES.sub(" ", text)))


def prompt_group(row: Row) -> str:
    """The normalised prompt of a row; rows with the same prompt form a group."""
    return normalised(row.request.prompt)


def _keys(row: Row) -> set[str]:
    return {prompt_group(row), normalised(row.request.content())} - {""}
