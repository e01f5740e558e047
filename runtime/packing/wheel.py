"""Writes a pure wheel reproducibly: the same files give the same bytes.

Format: PEP 427. Members are stored without compression, because weights hardly compress and the
output of deflate depends on the zlib version. Every member has the earliest date of the zip format.
"""

import base64
import hashlib
from pathlib import Path
from typing import Self
from zipfile import ZipFile, ZipInfo

_CHUNK = 1 << 20
_READABLE_FILE = 0o100644 << 16
_UNIX = 3


class Wheel:
    """Context manager that writes a wheel; leaving the block writes its RECORD.

    Args:
        path: the file to write.
        project: name and version as in the file name, ``acme_guard-1.2.0``.
    """

    def __init__(self, path: Path, project: str) -> None:
        self._archive = ZipFile(path, "w")
        self._info = f"{project}.dist-info"
        self._record: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            record = f"{self._info}/RECORD"
            lines = [*self._record, f"{record},,"]
            self._archive.writestr(_member(record, 0), "".join(f"{line}\n" for line in lines))
        self._archive.close()

    def add_info(self, name: str, text: str) -> None:
        """Add a file to the ``.dist-info`` folder, such as ``METADATA``."""
        data, path = text.encode(), f"{self._info}/{name}"
        self._archive.writestr(_member(path, len(data)), data)
        self._list(path, hashlib.sha256(data).digest(), len(data))

    def add_file(self, name: str, source: Path) -> str:
        """Add a file of the package.

        Returns:
            The sha256, in hex, of the bytes written.
        """
        digest, size = hashlib.sha256(), source.stat().st_size
        with source.open("rb") as reader, self._archive.open(_member(name, size), "w") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        self._list(name, digest.digest(), size)
        return digest.hexdigest()

    def _list(self, name: str, digest: bytes, size: int) -> None:
        code = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._record.append(f"{name},sha256={code},{size}")


def _member(name: str, size: int) -> ZipInfo:
    member = ZipInfo(name)  # dated 1 January 1980
    member.create_system = _UNIX
    member.external_attr = _READABLE_FILE
    member.file_size = size  # zipfile decides by it whether to use zip64
    return member
