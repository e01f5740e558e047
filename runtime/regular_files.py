"""Opens regular files only: opening a pipe, or reading a device, might not end."""

import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: there is no such file, it cannot be read, or it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a file", str(path))
    return BufferedReader(FileIO(descriptor))


def read_regular(path: Path, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        OSError: as ``open_regular``; or the file is larger.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"more than {most} bytes", str(path))
    return data
