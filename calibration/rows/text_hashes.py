"""Keyed hashes of texts: with the key a text is recognised, without it no text can be guessed.

A bundle records which texts its detectors were fitted on, so that later calibrations leave them
out. The hashes are HMAC-SHA256 with a key of whoever calibrates. The key is a file outside the
bundle, and is never copied, packed or signed. The same key and rows give the same bytes.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.regular_files import read_regular
from layerguard.runtime.types import Array

KEY_FILE = "LAYERGUARD_TEXT_KEY"
"""Environment variable that names the file of the key."""

_KEY_BYTES = 32
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TextHashes:
    """Hashes texts with one key; without a key as releases before the key did.

    Attributes:
        key: the key; empty for bundles of earlier releases.
    """

    key: bytes

    @property
    def id(self) -> str:
        """16 hex digits that identify the key and do not reveal it; empty without a key."""
        return self._digest(b"layerguard text key").hex()[:16] if self.key else ""

    def of(self, texts: Iterable[str]) -> Array:
        """The first eight bytes of each text's hash, int64 [n]."""
        digests = b"".join(self._digest(text.encode())[:8] for text in texts)
        return np.frombuffer(digests, dtype="<i8").astype(np.int64)

    def _digest(self, data: bytes) -> bytes:
        if not self.key:
            return hashlib.sha256(data).digest()
        return hmac.digest(self.key, data, "sha256")


def own_hashes() -> TextHashes:
    """The hashes with the key of this machine's user, which is made on first use.

    The key is the content of the file that ``LAYERGUARD_TEXT_KEY`` names, or else of
    ``layerguard/text-key`` in ``$XDG_STATE_HOME`` (``~/.local/state``).

    Raises:
        InputError: the file does not hold a key.
        MachineError: the key cannot be read or made.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    default = Path(state).expanduser() / "layerguard" / "text-key"
    path = Path(os.environ.get(KEY_FILE) or default)
    try:
        with suppress(FileExistsError):
            _make(path)
        key = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise MachineError(
            f"{path}: {error.strerror}; expected the key of the hashes of calibration texts, or a "
            f"place to write a new one: set {KEY_FILE} to a file"
        ) from error
    if len(key) < _KEY_BYTES:
        raise InputError(
            f"{path} has {len(key)} bytes; expected a key of at least {_KEY_BYTES} random bytes: "
            f"remove the file, or set {KEY_FILE} to the right one"
        )
    return TextHashes(key)


def hashes_of(bundle: Bundle) -> TextHashes:
    """The hashes that the bundle's texts were recorded with.

    Raises:
        InputError: they were made with another key.
        MachineError: as ``own_hashes``.
    """
    recorded = bundle.manifest.text_key
    if bundle.decision and not recorded:
        return TextHashes(b"")
    own = own_hashes()
    if recorded not in ("", own.id):
        raise InputError(
            f"{bundle.path} records its calibration texts with key {recorded}; found key {own.id}: "
            f"set {KEY_FILE} to the file of the key that it was calibrated with, or calibrate all "
            "detectors in one call"
        )
    return own


def _make(path: Path) -> None:
    """Write a new key, complete or not at all, that only its owner can read.

    Raises:
        FileExistsError: there is a file already.
        OSError: it cannot be written.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
