"""Writing a bundle atomically: a neighbouring folder, fsync, then one exchange of names.

A killed or failed writer leaves the old bundle as it was. Two writers cannot meet: the second is
told so.
"""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from layerguard.runtime.bundle.files import MANIFEST, card_of
from layerguard.runtime.bundle.manifest import Manifest, read_manifest
from layerguard.runtime.errors import BundleError, InputError, MachineError

_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
)  # fmt: skip
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new, empty folder that becomes ``target`` when the block ends well.

    Raises:
        InputError: ``target`` exists and is not a bundle, its parent does not exist, or another
            process is writing it.
        MachineError: the disk is full, or fails.
    """
    target = target.resolve()  # where a link points, so that what it points to is not left behind
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a folder; make it first")
    if target.exists() and not (target / MANIFEST).is_file() and any_inside(target):
        raise InputError(
            f"{target} exists and is not a bundle (no {MANIFEST}); name a new folder, or empty it"
        )
    folder = target.with_name(f".{target.name}.writing")
    try:
        with ExitStack() as held:
            folder.mkdir(exist_ok=True)
            held.callback(os.close, _lock(folder, target))
            if _aside(folder).exists():  # a writer was killed between its two renames
                _undo(_aside(folder), target)
            _empty(folder)  # what a killed writer left
            try:
                yield folder
                _sync(folder)
                if target.exists():  # it takes the new folder's name: nobody may write there yet
                    held.callback(os.close, _lock(target, target))
                _exchange(folder, target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise MachineError(
            f"{target} could not be written ({error.strerror}); what stood there is untouched. "
            "Make room on that disk, or permit writing there, and run the command again"
        ) from error


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` with the sizes and hashes of all files in ``folder``.

    Returns:
        The manifest as written.

    Raises:
        BundleError: no reader would take the manifest.
    """
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    sealed = replace(manifest, files={path.name: card_of(path) for path in paths})
    data = sealed.to_bytes()
    _, faults = read_manifest(data)
    if faults:
        raise BundleError(folder, faults)
    (folder / MANIFEST).write_bytes(data)
    return sealed


def carry_over(source: Path, folder: Path, names: list[str]) -> None:
    """Bring unchanged files into the new folder: as links where that works, else as copies."""
    for name in names:
        try:
            os.link((source / name).resolve(), folder / name)
        except OSError:
            shutil.copyfile(source / name, folder / name)


def any_inside(path: Path) -> bool:
    """Whether ``path`` is a file, or a folder with something in it."""
    return not path.is_dir() or any(path.iterdir())


def _lock(folder: Path, target: Path) -> int:
    """An open descriptor of ``folder``, which is then this process's alone.

    Raises:
        InputError: another process has it, or has just put another folder in its place.
    """
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        fault = "was just written by another process; run the command again"
    except OSError as error:
        fault = f"is being written by another process ({error.strerror}); wait until it is done"
    if descriptor >= 0:
        os.close(descriptor)
    raise InputError(f"{target} {fault}")


def _aside(folder: Path) -> Path:
    """Where the old bundle waits on a file system that cannot exchange two names."""
    return folder.with_name(f"{folder.name}.old")


def _undo(aside: Path, target: Path) -> None:
    """Give the old bundle its name back, unless the new one has it already."""
    if target.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(target)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(folder: Path, target: Path) -> None:
    """Give ``folder`` the name ``target`` in one step; what stood there takes ``folder``'s name."""
    if not target.exists():
        folder.rename(target)
    elif not _renameat2(folder, target):  # a file system without exchange: two steps
        aside = _aside(folder)
        target.rename(aside)
        folder.rename(target)
        aside.rename(folder)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renameat2(first: Path, second: Path) -> bool:
    """Exchange two names atomically (Linux); False where that is not to be had.

    Raises:
        OSError: it is to be had, and failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(second))
