"""Handling of the standard streams: any encoding, closed streams, and full disks."""

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from layerguard.runtime.errors import InputError
from layerguard.runtime.printable import printable

NOT_WRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Error numbers of an ``OSError`` that mean that output could not be written."""


def accept_any_text() -> None:
    """Make the output streams escape characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def standard_input() -> str:
    """The text on standard input, in UTF-8 whatever the locale.

    A byte-order mark at its beginning and one end of line at its end are not part of it.

    Raises:
        InputError: it is closed or empty, or not UTF-8.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed; expected a text there, or as an argument")
    buffer = getattr(sys.stdin, "buffer", None)
    try:
        text: str = buffer.read().decode("utf-8") if buffer else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not {error.encoding} at byte {error.start}; expected text"
        ) from error
    text = text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
    if not text:
        raise InputError("standard input is empty; expected a text there, or as an argument")
    return text


def show(*lines: str, to: TextIO | None = None) -> None:
    """Print lines on standard output, or on ``to``; control characters in them are escaped.

    Lines quote rows and bundles, which must not steer the terminal or forge further lines.
    """
    print("\n".join(map(printable, lines)), file=to or sys.stdout)


def show_faults(command: str, faults: Iterable[str]) -> None:
    """Print one line on standard error for each fault that a command found."""
    for fault in faults:
        show(f"layerguard {command}: {fault}", to=sys.stderr)


def say(text: str) -> None:
    """Print on standard error; do nothing if that fails, because the exit code still tells.

    Control characters are escaped; line breaks are kept.
    """
    try:
        print(printable(text, keep="\n"), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


@contextmanager
def flushed() -> Iterator[None]:
    """Flush standard output at the end of the block.

    Raises:
        OSError: standard output cannot be written; later output to it is discarded.
    """
    try:
        yield
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _discard(sys.stdout)
            raise


def _discard(stream: TextIO) -> None:
    """Discard a stream's buffered output, so that Python does not fail on it when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
