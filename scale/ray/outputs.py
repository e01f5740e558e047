"""Files of verdicts: JSON lines, or Parquet.

A row is encoded by the worker that scored it, and written by the caller. The file has its name once
it is complete.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.rows.parquet import is_parquet
from layerguard.runtime.types import Verdict

Verdicts = Sequence[tuple[Row, Verdict]]
"""Rows with their verdicts."""


def encoded(path: Path, verdicts: Verdicts) -> Any:
    """Some rows as ``written`` takes them."""
    return _table(verdicts) if is_parquet(path) else _lines(verdicts)


@contextmanager
def written(path: Path) -> Iterator[Callable[[Any], object]]:
    """Yields what writes encoded rows; the file is there when the block ends without an error.

    Raises:
        InputError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _parquet(partial) if is_parquet(path) else _jsonl(partial) as write:
            yield write
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected a file to write") from error
    finally:
        partial.unlink(missing_ok=True)


def _lines(verdicts: Verdicts) -> bytes:
    """What ``layerguard score --json`` prints."""
    lines = [
        json.dumps({"id": row.id, **verdict.to_json()}, allow_nan=False)
        for row, verdict in verdicts
    ]
    return "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[Any], object]]:
    with path.open("wb") as file:
        yield file.write


def _table(verdicts: Verdicts) -> Any:
    """A table with the columns of ``_schema``."""
    import pyarrow as pa  # noqa: PLC0415  an extra

    rows = [
        {
            "id": row.id,
            "flagged": verdict.flagged,
            "status": verdict.status,
            "reason": verdict.reason,
            "p_value": verdict.p_value,
            "tokens": verdict.tokens,
            "truncated": verdict.truncated,
            "scores": [(name, reading.score) for name, reading in verdict.readings.items()],
            "verdict": json.dumps(verdict.to_json(), allow_nan=False),
        }
        for row, verdict in verdicts
    ]
    return pa.Table.from_pylist(rows, _schema(pa))


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Any], object]]:
    import pyarrow as pa  # noqa: PLC0415  an extra
    from pyarrow import parquet  # noqa: PLC0415

    with parquet.ParquetWriter(path, _schema(pa)) as writer:
        yield writer.write_table


def _schema(pa: Any) -> Any:
    """The columns: the parts of a verdict that are asked for most, and all of it."""
    return pa.schema(
        {
            "id": pa.string(),
            "flagged": pa.bool_(),
            "status": pa.string(),
            "reason": pa.string(),
            "p_value": pa.float64(),
            "tokens": pa.int64(),
            "truncated": pa.bool_(),
            "scores": pa.map_(pa.string(), pa.float64()),
            "verdict": pa.string(),
        }
    )
