"""The leakage guard: no row that a test file holds is trained or calibrated on."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from layerguard.runtime.rows.jsonl import Row, read_rows


@dataclass(frozen=True, slots=True)
class TestTexts:
    """The normalised texts of the named test files, and a sentence for each row of no use."""

    __test__ = False  # pytest: not a class of tests

    texts: frozenset[str]
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "TestTexts":
        """The texts that the rows hold."""
        return cls(frozenset(key for row in rows for key in _keys(row)))

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "TestTexts":
        """The texts of the files' good rows.

        Raises:
            InputError: a file cannot be opened, or no row of it is good.
        """
        found = [read_rows([path]) for path in paths]
        texts = cls.of(row for rows in found for row in rows.good).texts
        return cls(texts, tuple(fault for rows in found for fault in rows.faults))

    def without(self, rows: Iterable[Row]) -> tuple[Row, ...]:
        """The rows that share neither their prompt nor their whole text with the test files."""
        return tuple(row for row in rows if self.texts.isdisjoint(_keys(row)))


def normalised(text: str) -> str:
    """``text`` without differences that make no other text: NFKC, case, white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_group(row: Row) -> str:
    """What rows of one prompt have in common, whatever their responses: a group for folds."""
    return normalised(row.request.prompt)


def _keys(row: Row) -> set[str]:
    return {prompt_group(row), normalised(row.request.content())} - {""}
