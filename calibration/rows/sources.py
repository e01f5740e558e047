"""Read rows from JSONL files, or take rows as given."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layerguard.runtime.rows.jsonl import Row, Rows, read_rows

RowSources = str | Path | Sequence[str | Path | Row]
"""A JSONL file, or several files or rows."""


def read_sources(sources: RowSources) -> Rows:
    """Read all rows, in order; a fault describes each line that is not a row.

    Raises:
        InputError: a file cannot be opened, or has no good row.
    """
    good: list[Row] = []
    faults: list[str] = []
    for source in listed(sources):
        if isinstance(source, Row):
            good.append(source if source.place else replace(source, place=f"row {source.id}"))
        else:
            rows = read_rows([source])
            good += rows.good
            faults += rows.faults
    return Rows(tuple(good), tuple(faults))


def listed(sources: RowSources) -> list[Path | Row]:
    """The sources as a list of paths and rows."""
    several = [sources] if isinstance(sources, str | Path) else sources
    return [source if isinstance(source, Row) else Path(source) for source in several]


def shown(sources: RowSources) -> str:
    """The sources in an error message: the names of files, and the number of given rows."""
    items = listed(sources)
    files = [str(item) for item in items if isinstance(item, Path)]
    rows = len(items) - len(files)
    return ", ".join([*files, *([f"{rows} rows"] if rows else [])])
