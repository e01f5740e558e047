"""Checks rows of files in chunks, with a progress bar; skips rows that cannot be read."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Verdict

CHUNK = 64
"""Rows that are checked at a time."""


def check_rows(
    guard: Guard,
    rows: Sequence[Row],
    faults: list[str],
    description: str,
    *,
    show_progress: bool = True,
) -> Iterator[tuple[Row, Verdict]]:
    """Yield each row with its verdict, in order. Shows a progress bar on a terminal only.

    For each row that the chat template refuses, one sentence is appended to ``faults``.
    """
    disable = None if show_progress else True
    with tqdm(total=len(rows), desc=description, unit="row", disable=disable) as bar:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            yield from _check(guard, chunk, faults)
            bar.update(len(chunk))


def _check(guard: Guard, rows: Sequence[Row], faults: list[str]) -> Iterator[tuple[Row, Verdict]]:
    """Check the rows as one batch, or one by one if the chat template refuses one of them."""
    requests, domains = [row.request for row in rows], [row.domain for row in rows]
    try:
        yield from zip(rows, guard.check_requests(requests, domains), strict=True)
    except InputError as error:
        if len(rows) == 1:
            faults.append(f"{rows[0].place}: {error}")
            return
        for row in rows:
            yield from _check(guard, (row,), faults)
