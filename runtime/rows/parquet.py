"""Rows of Parquet files, whose columns have the names of the keys of a JSON row.

Each structure of a Parquet column has all of its fields. Those that are null are left out, as they
are absent in JSON. Needs pyarrow, ``layerguard[parquet]``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import InputError, MachineError

_BATCH = 1024
"""Rows that are decoded at a time."""


def is_parquet(path: Path) -> bool:
    """Whether the name of a file says that it is Parquet."""
    return path.suffix == ".parquet"


def row_groups(path: Path) -> list[int]:
    """The number of rows of each row group of a file; errors as ``records``."""
    with _opened(path) as file:
        metadata = file.metadata
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def records(
    path: Path, groups: Sequence[int] | None = None, first: int = 1
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file with their numbers.

    Args:
        path: the file.
        groups: the row groups to read; None: all.
        first: number of the first row.

    Raises:
        InputError: the file cannot be read, or is not Parquet.
        MachineError: pyarrow is not installed.
    """
    with _opened(path) as file:
        number = first
        try:
            for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups):
                for row in batch.to_pylist():
                    yield number, _without_nulls(row)
                    number += 1
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise _unreadable(path, error) from error


def _opened(path: Path) -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415  an extra of its own
    except ImportError as error:
        raise MachineError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install "
            "'layerguard[parquet]', or give the rows as JSON lines"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{path}: {reason}; expected a Parquet file of rows")


def _without_nulls(value: Any) -> Any:
    """The value without the fields of structures that are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
