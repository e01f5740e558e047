"""Reads a folder that does not change while it is read, so that what is used is what was verified.

Graphs and weights are opened by ONNX Runtime, by path. A path may lead to another file each time it
is opened, and the content of a file may change. Here a folder is held by its descriptor, and the
stamps of the folder and of its files are compared before and after. Writing, replacing, renaming or
linking a file changes its stamp or that of its folder, also if the change is undone.

Not detected: a process that may write a file and changes it through a memory map that it made
before, an administrator who mounts another file there or sets the clock, and changes within one
second on a file system that keeps times in whole seconds.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from layerguard.runtime.bundle.contents import finish_interrupted
from layerguard.runtime.bundle.files import MANIFEST, UNLISTED
from layerguard.runtime.errors import BundleError

Stamp = tuple[int, ...]
"""Device, inode, size in bytes, and the times of the last write and of the last change, in ns."""

T = TypeVar("T")

_ATTEMPTS = 20
_TICK_NS = 20_000_000
"""Twice the coarsest step, 10 ms, in which Linux sets the times of files. Two changes within one
step get the same time, so a stamp identifies a state only if the last change is older than that."""


@contextmanager
def pinned(folder: Path) -> Iterator[Path]:
    """A path of the folder with the bundle's files that leads to this folder even if it is renamed.

    In a Kubernetes volume every file is a link to a folder inside, which is the one returned.

    Raises:
        OSError, ValueError: the folder cannot be opened.
    """
    handle = os.open(_home(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def stamps(folder: Path) -> Mapping[str, Stamp]:
    """The stamps of a folder, under the name ``.``, and of everything in it.

    Waits until the last change is older than the step of the file system's clock.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = _stamps(folder)
    age = time.time_ns() - max(max(stamp[-2:]) for stamp in found.values())
    if age < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
        found = _stamps(folder)
    return found


def steadily(folder: Path, read: Callable[[Path], T], writer: str = "layerguard export") -> T:
    """The result of ``read`` on a folder that did not change while it was read.

    A calibration may replace the folder, or its files, while it is read; then it is read again.

    Args:
        folder: the folder.
        read: gets a path that leads to the same folder even if the folder is renamed.
        writer: the command that writes such a folder, for messages.

    Raises:
        BundleError: ``read`` raised it on an unchanged folder, or the folder keeps changing.
    """
    for _ in range(_ATTEMPTS):
        unfinished = finish_interrupted(folder)
        if unfinished:
            raise BundleError(folder, [unfinished])
        with ExitStack() as held:
            try:
                place = held.enter_context(pinned(folder))
                before = stamps(place)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                reason = getattr(error, "strerror", None) or error
                fault = f"{MANIFEST}: {reason}; expected a folder that `{writer}` wrote"
                raise BundleError(folder, [fault]) from error
            try:
                result = read(place)
            except BundleError as error:
                if _is_still(folder, place, before):
                    raise BundleError(folder, error.faults) from error
            else:
                if _is_still(folder, place, before):
                    return result
    fault = f"it was replaced {_ATTEMPTS} times while it was read; try again when that is done"
    raise BundleError(folder, [fault])


def _home(folder: Path) -> Path:
    """The folder that holds the files: in a Kubernetes volume, the one that the links lead to."""
    manifest = folder / MANIFEST
    if not manifest.is_symlink():
        return folder
    inner = Path(os.path.realpath(manifest)).parent
    return inner if inner.parent == Path(os.path.realpath(folder)) else folder


def _is_still(folder: Path, place: Path, before: Mapping[str, Stamp]) -> bool:
    """Whether ``place`` is the same folder as ``folder`` and has the stamps of ``before``."""
    try:
        return _stamps(place) == before and place.samefile(_home(folder))
    except OSError:
        return False


def _stamps(folder: Path) -> dict[str, Stamp]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in UNLISTED:
                with suppress(
                    FileNotFoundError
                ):  # removed meanwhile, which the folder's stamp shows
                    found[entry.name] = _stamp(entry.stat(follow_symlinks=False))
    return {**found, ".": _stamp(folder.stat())}


def _stamp(status: os.stat_result) -> Stamp:
    where = status.st_dev, status.st_ino, status.st_size
    return *where, status.st_mtime_ns, status.st_ctime_ns
