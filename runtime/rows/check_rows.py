"""Verdicts on rows of files: in chunks, past rows that cannot be read, with a progress bar."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Verdict

_CHUNK = 64


def check_rows(
    guard: Guard,
    rows: Sequence[Row],
    faults: list[str],
    description: str,
    *,
    show_progress: bool = True,
) -> Iterator[tuple[Row, Verdict]]:
    """Rows and their verdicts, in order; a bar on a terminal, silence in a pipe.

    A sentence for each row that the chat template refuses goes to ``faults``.
    """
    disable = None if show_progress else True
    with tqdm(total=len(rows), desc=description, unit="row", disable=disable) as bar:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            yield from _check(guard, chunk, faults)
            bar.update(len(chunk))


def _check(guard: Guard, rows: Sequence[Row], faults: list[str]) -> Iterator[tuple[Row, Verdict]]:
    """The rows as one batch, or one by one where the chat template refuses some."""
    requests, domains = [row.request for row in rows], [row.domain for row in rows]
    try:
        yield from zip(rows, guard.check_requests(requests, domains), strict=True)
    except InputError as error:
        if len(rows) == 1:
            faults.append(f"{rows[0].place}: {error}")
            return
        for row in rows:
            yield from _check(guard, (row,), faults)
