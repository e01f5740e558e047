"""The standard streams as shells and pipes leave them: in any encoding, closed or full."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from layerguard.runtime.errors import InputError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Of an ``OSError``: what is printed or written finds no place."""


def accept_any_text() -> None:
    """Print as an escape what a stream's encoding cannot say, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def standard_input() -> str:
    """The text on standard input, in UTF-8 whatever the locale.

    A byte-order mark at its beginning and one end of line at its end are not part of it.

    Raises:
        InputError: it is closed, or not UTF-8.
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
    return text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def say(text: str) -> None:
    """Print on standard error, or nowhere if it takes nothing: the exit code still says it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


@contextmanager
def flushed() -> Iterator[None]:
    """Write what was printed before the block is left.

    Raises:
        OSError: standard output cannot be written; nothing more will be printed there.
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
    """Let what a stream still holds go nowhere, so that Python does not fail on it at its exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
