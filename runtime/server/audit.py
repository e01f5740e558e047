"""The audit log: one JSON line for each answer, without its text.

A line holds an HMAC of the text, so that whoever has the key and a text can find its lines, and
nobody else can guess the text. With ``audit_chain`` each line also holds an HMAC of itself and of
the line before it, so that a line that was changed, added or left out shows in ``verify``.
"""

import hmac
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.config import AuditConfig
from layerguard.runtime.server.records import Record
from layerguard.runtime.text.request import Request

_LEAST_KEY = 16
_TAIL_BYTES = 1 << 20
"""More than any line has."""


def read_key(path: str) -> bytes:
    """The key in a file, without the blanks around it.

    Raises:
        InputError: the file cannot be read, or the key is too short.
    """
    if not path:
        raise InputError("audit_file needs audit_key_file, a file with the key of its HMACs")
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file with a key") from error
    if len(key) < _LEAST_KEY:
        raise InputError(
            f"{path}: found a key of {len(key)} bytes; expected at least {_LEAST_KEY}: "
            "openssl rand -hex 32"
        )
    return key


def text_hmac(key: bytes, request: Request, answer: str | None = None) -> str:
    """HMAC-SHA256 of what was checked, in hexadecimal digits.

    Of a single text its UTF-8 bytes are hashed; of anything else the JSON of its parts (``prompt``,
    ``response``, ``messages``, ``tools``), in ASCII, with sorted keys and without blanks.

    Args:
        key: the key of the log.
        request: the request.
        answer: of an answer that is still being written: what was written so far.
    """
    names = ("prompt", "response") if request.messages is None else ("messages", "tools")
    parts = {name: getattr(request, name) for name in names}
    parts = {name: value for name, value in parts.items() if value is not None}
    if answer is not None:
        parts["response"] = answer
    if parts.keys() == {"prompt"}:
        content = request.prompt.encode()
    else:
        content = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()
    return _hmac(key, content)


class AuditLog:
    """A file of records that only grows. Every line is written at once, and by one call."""

    def __init__(self, config: AuditConfig) -> None:
        """Open the file, and continue it if it exists.

        Raises:
            InputError: the file or the key cannot be used.
        """
        self._path, self._key = Path(config.audit_file), read_key(config.audit_key_file)
        self._chained = config.audit_chain == "on"
        self._lock = threading.Lock()
        self._file = self._opened()
        self._last = _last_chain(self._path) if self._chained else ""

    def write(self, record: Record, request: Request, answer: str | None = None) -> None:
        """Write the record of an answer to a request; see ``text_hmac``.

        Raises:
            OSError: it cannot be written.
        """
        line = {**record.to_json(), "text_hmac": text_hmac(self._key, request, answer)}
        with self._lock:
            if self._chained:
                line["previous"] = self._last
                line["chain"] = _chain(self._key, line)
            content = _json(line).encode() + b"\n"
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError(f"{self._path}: {written} of {len(content)} bytes were written")
            self._last = line.get("chain", "")

    def reopen(self) -> None:
        """Open the file again, which may have been moved; the chain goes on in the new one.

        Raises:
            InputError: it cannot be opened; the earlier one stays in use.
        """
        with self._lock:
            fresh = self._opened()
            os.close(self._file)
            self._file = fresh

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise InputError(
                f"{self._path}: {error.strerror}; expected a file for the audit log"
            ) from error


def verify(path: Path, key: bytes) -> tuple[int, str, list[str]]:
    """Check the chain of a log.

    The first line may continue another file, and nothing tells whether lines at the end were left
    out: compare the number of lines, or the last ``chain``, with what is known.

    Args:
        path: the file.
        key: its key.

    Returns:
        How many lines it has, the last chain, and a sentence for each line that is not as it was
        written.

    Raises:
        InputError: the file cannot be read.
    """
    faults: list[str] = []
    previous: str | None = None
    number = 0
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                line = _parsed(content)
                as_written = content == _json(line).encode() + b"\n"
                chain = line.pop("chain", None)
                if chain is None:
                    faults.append(f"line {number}: found no chain; it was cut off or changed")
                elif not (as_written and hmac.compare_digest(str(chain), _chain(key, line))):
                    faults.append(f"line {number}: it was changed, or has another key")
                elif previous is not None and line.get("previous") != previous:
                    faults.append(f"line {number}: it does not follow the line before it")
                previous = chain if isinstance(chain, str) else None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected an audit log") from error
    return number, previous or "", faults


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        line = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _last_chain(path: Path) -> str:
    """The chain of the last line of a file; empty if it has none.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; expected a file that can be read, to continue its chain"
        ) from error
    return str(_parsed(lines[-1]).get("chain", "")) if lines else ""


def _chain(key: bytes, line: Mapping[str, Any]) -> str:
    return _hmac(key, _json(line).encode())


def _hmac(key: bytes, content: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False, separators=(",", ":"))
