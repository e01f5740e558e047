"""The sources of clean rows: which are measured, and why others are not."""

from collections.abc import Iterable
from dataclasses import dataclass

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.runtime.rows.jsonl import Row

LEAST_TEXTS = 30
"""Fewest texts of a source that is measured."""

MOST_SOURCES = 8
"""Most sources that are measured: a detector is fitted again without each of them."""

MOST_TRAINED = 3
"""The same for a detector that is trained on labelled rows, which takes longer to fit."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of some clean rows.

    Attributes:
        measured: names, those with the most texts first.
        not_measured: why other sources are not measured, by name.
    """

    measured: tuple[str, ...]
    not_measured: dict[str, str]

    @classmethod
    def of(cls, rows: Iterable[Row], most: int = MOST_SOURCES) -> "Sources":
        """Choose at most ``most`` sources with enough texts; rows of label 1 do not count."""
        texts: dict[str, set[str]] = {}
        for row in rows:
            source = source_of(row)
            if source is not None and row.label != 1:
                texts.setdefault(source, set()).add(prompt_group(row))
        ranked = sorted(texts, key=lambda source: (-len(texts[source]), source))
        enough = [source for source in ranked if len(texts[source]) >= LEAST_TEXTS]
        why = dict.fromkeys(ranked[len(enough) :], f"fewer than {LEAST_TEXTS} texts")
        beyond = f"only the {most} sources with the most texts are left out"
        why |= dict.fromkeys(enough[most:], beyond)
        return cls(tuple(enough[:most]), why)


def source_of(row: Row) -> str | None:
    """The source of a row; without one, its domain."""
    return row.source or row.domain
