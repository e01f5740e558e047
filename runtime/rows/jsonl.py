"""Rows of JSONL: ``{"id", "text" | "prompt"+"response" | "messages", "label"?, "domain"?, ...}``.

A file whose name ends in ``.parquet`` has the same keys as columns; see ``parquet``.

Beside ``domain``, which has thresholds of its own, a row may have a ``source``, by which it is
measured. ``spans``, [[start, end], ...], says where text was injected; [] if the place is unknown.
``layerguard trace`` also reads the key ``target``, the text that an answer should begin with. A
byte-order mark at the beginning of a file is skipped. A bad row is reported with its file and line;
the good rows are still used.
"""

import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from layerguard.runtime.bundle.schema import without_duplicates
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows import parquet
from layerguard.runtime.text.request import Request, check_text, request

_STANDARD_INPUT = Path("-")

_LONGEST = 8 << 20
"""Most bytes of a row."""

Place = tuple[int, int]
"""Offsets of the first character of a part of a text, and after its last one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One good row.

    Attributes:
        id: the row's id, or file stem and line number if it has none.
        request: the text to check.
        label: 0 (clean), 1 (to be flagged), or None.
        domain: name of the traffic's domain, or None.
        target: the text that an answer should begin with, or None.
        source: where the text comes from, such as a data set or a channel, or None.
        place: file and line of the row.
        spans: places of injected text in the text or prompt; empty if they are not known; None if
            the row does not say that text was injected.
    """

    id: str
    request: Request
    label: int | None = None
    domain: str | None = None
    target: str | None = None
    source: str | None = None
    place: str = ""
    spans: tuple[Place, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The good rows of some files, and one sentence for each bad row."""

    good: tuple[Row, ...]
    faults: tuple[str, ...]


Record = bytes | Mapping[str, Any]
"""A row as it stands in a file: a line of JSON, or the columns of a table."""


def read_rows(paths: Sequence[Path]) -> Rows:
    """All rows of the files, in order. ``-`` is standard input; compressed files are not supported.

    Raises:
        InputError: a file cannot be opened, or it has no good row.
        MachineError: a file is Parquet, and pyarrow is not installed.
    """
    good: list[Row] = []
    faults: list[str] = []
    for path in paths:
        rows = rows_of(path, parquet.records(path) if parquet.is_parquet(path) else lines(path))
        good += rows.good
        faults += rows.faults
        if not rows.good:
            raise no_usable_row(path, rows.faults)
    return Rows(tuple(good), tuple(faults))


def rows_of(path: Path, records: Iterable[tuple[int, Record]]) -> Rows:
    """The rows of some records of a file.

    Args:
        path: the file, for the rows' places and default ids.
        records: records with their numbers in the file, from 1.
    """
    good: list[Row] = []
    faults: list[str] = []
    is_piped = path == _STANDARD_INPUT
    where = "standard input" if is_piped else path
    stem = "stdin" if is_piped else os.fsencode(path.stem).decode(errors="replace")
    for number, record in records:
        try:
            value = _value(record) if isinstance(record, bytes) else record
            row = _row(value, default_id=f"{stem}-{number}")
            good.append(replace(row, place=f"{where}:{number}"))
        except (InputError, ValueError) as error:
            faults.append(f"{where}:{number}: {error}")
    return Rows(tuple(good), tuple(faults))


def no_usable_row(path: Path, faults: Sequence[str]) -> InputError:
    """The error for a file without a good row; it lists the first faults."""
    where = "standard input" if path == _STANDARD_INPUT else path
    listed = "".join(f"\n  - {fault}" for fault in faults[:5])
    expected = "rows" if parquet.is_parquet(path) else "one JSON object per line"
    return InputError(f"{where}: found no usable row; expected {expected}{listed}")


def lines(
    path: Path, start: int = 0, count: int | None = None, first: int = 1
) -> Iterator[tuple[int, bytes]]:
    """Lines of a file that are not blank, with their numbers.

    Args:
        path: the file.
        start: offset in bytes of the first line to read.
        count: lines to read, blank ones included; None: all that follow.
        first: number of the first line.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with _opened(path) as file:
            if start:
                file.seek(start)
            for number, line in enumerate(islice(_bounded_lines(file), count), first):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of JSON rows") from error


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of a line that is too long only its start, longer than ``_LONGEST``."""
    while line := file.readline(_LONGEST + 1):
        yield line
        while len(line) > _LONGEST and not line.endswith(b"\n"):
            line = file.readline(_LONGEST + 1)


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    if path != _STANDARD_INPUT:
        return path.open("rb")
    if sys.stdin is None:
        raise InputError("standard input is closed; expected JSON rows there")
    return nullcontext(sys.stdin.buffer)


def _value(line: bytes) -> Mapping[str, Any]:
    if len(line) > _LONGEST:
        raise InputError(f"found more than {_LONGEST} bytes; expected at most that many in a row")
    try:
        value: Any = json.loads(line.decode("utf-8"), object_pairs_hook=without_duplicates)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}; expected a JSON object") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON ({error.msg}, column {error.colno}); expected an object"
        ) from error
    except RecursionError as error:
        raise InputError("nested too deeply; expected a flat JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"found {type(value).__name__}; expected a JSON object")
    return value


def _row(value: Mapping[str, Any], default_id: str) -> Row:
    text, prompt, response = value.get("text"), value.get("prompt"), value.get("response")
    if prompt is None and response is not None:  # "text" with "response" means "prompt"
        text, prompt = None, text
    label = value.get("label")
    if label not in (None, 0, 1):
        raise InputError(f"label: found {label!r}; expected 0 (clean) or 1 (to be flagged)")
    keys = ("id", "domain", "target", "source")
    strings = {key: str(value[key]) for key in keys if value.get(key) is not None}
    for key, text_value in strings.items():
        check_text(key, text_value)
    return Row(
        id=strings.get("id", default_id),
        request=request(
            text,
            prompt=prompt,
            response=response,
            messages=value.get("messages"),
            tools=value.get("tools"),
        ),
        label=None if label is None else int(label),
        domain=strings.get("domain"),
        target=strings.get("target"),
        source=strings.get("source"),
        spans=_spans(value.get("spans"), prompt if text is None else text),
    )


def _spans(value: Any, text: Any) -> tuple[Place, ...] | None:
    if value is None:
        return None
    length = len(text) if isinstance(text, str) else 0
    if not isinstance(value, list) or not all(map(_is_place, value)):
        raise InputError(f"spans: found {value!r}; expected a list of [start, end]")
    outside = next((pair for pair in value if not 0 <= pair[0] < pair[1] <= length), None)
    if outside is not None:
        raise InputError(
            f"spans: found {outside}; expected 0 <= start < end <= {length}, in characters of the "
            "text"
        )
    return tuple((start, end) for start, end in value)


def _is_place(pair: Any) -> bool:
    return isinstance(pair, list) and [type(number) for number in pair] == [int, int]
