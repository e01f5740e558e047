"""Parts of files of rows, which workers read by themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from layerguard.runtime.errors import InputError
from layerguard.runtime.rows import parquet
from layerguard.runtime.rows.check_rows import CHUNK
from layerguard.runtime.rows.jsonl import Rows, lines, rows_of

LINES = 8 * CHUNK
"""Lines of a part, blank ones included. Its chunks are those of the whole file, unless a line is
blank or bad."""

_BYTES = 1 << 20
"""Bytes that are read at a time, of a line without an end."""


@dataclass(frozen=True, slots=True)
class Split:
    """Some rows of a file: a few lines, or a row group of Parquet.

    Attributes:
        path: the file, wherever a worker runs.
        named: the same as the caller named it, for the rows' places.
        first: number of the first row in the file, from 1.
        start: offset in bytes of the first line; of Parquet the number of the row group.
    """

    path: Path
    named: Path
    first: int
    start: int

    def rows(self) -> Iterator[Rows]:
        """The rows, some at a time.

        Raises:
            InputError: the file cannot be read.
            MachineError: it is Parquet, and pyarrow is not installed.
        """
        if not parquet.is_parquet(self.path):
            yield rows_of(self.named, lines(self.path, self.start, LINES, self.first))
            return
        records = parquet.records(self.path, [self.start], self.first)
        while some := list(islice(records, LINES)):
            yield rows_of(self.named, some)


def splits(paths: Sequence[Path]) -> list[Split]:
    """The parts of some files, in order. JSON lines are read once, to number them.

    Raises:
        InputError: a file cannot be read.
        MachineError: a file is Parquet, and pyarrow is not installed.
    """
    return [
        split
        for path in paths
        for split in (_of_groups(path) if parquet.is_parquet(path) else _of_lines(path))
    ]


def _of_groups(path: Path) -> Iterator[Split]:
    first = 1
    for group, count in enumerate(parquet.row_groups(path)):
        yield Split(path.absolute(), path, first, group)
        first += count


def _of_lines(path: Path) -> Iterator[Split]:
    number = offset = 0
    begins = True
    try:
        with path.open("rb") as file:
            while part := file.readline(_BYTES):
                if begins:
                    if number % LINES == 0:
                        yield Split(path.absolute(), path, number + 1, offset)
                    number += 1
                offset += len(part)
                begins = part.endswith(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of JSON rows") from error
