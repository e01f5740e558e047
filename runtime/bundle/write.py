"""Writes a bundle atomically: a folder beside the target, fsync, then one exchange of names.

A killed or failed writer leaves the old bundle unchanged. A second concurrent writer is refused. If
the folder cannot be renamed, its files are replaced instead (``contents.py``).
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from layerguard.runtime.bundle import contents
from layerguard.runtime.bundle.files import MANIFEST, UNLISTED, card_of
from layerguard.runtime.bundle.manifest import Manifest, read_manifest
from layerguard.runtime.errors import BundleError, InputError, MachineError

_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EBUSY, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESTALE,
)  # fmt: skip
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV)
_NO_RENAME = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES)
"""Errors of renaming a mount point, a lower layer of overlayfs, or a folder in a read-only one."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new, empty folder that becomes ``target`` when the block ends without an exception.

    Raises:
        InputError: ``target`` exists and is not a bundle, its parent does not exist, or another
            process is writing it.
        MachineError: the disk is full or fails.
    """
    target = target.resolve()  # replaces the target of a link, not the link
    if not target.parent.is_dir():
        raise InputError(
            f"{target.parent} is not a folder; expected an existing one: create it first"
        )
    is_bundle = (target / MANIFEST).is_file() or contents.is_unfinished(target)
    if target.exists() and not is_bundle and any_inside(target):
        raise InputError(
            f"{target} exists and is not a bundle (no {MANIFEST}); name a new folder, or empty it"
        )
    method = contents.replacing_contents if contents.must_stay(target) else _renaming
    try:
        with method(target) as folder:
            yield folder
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise MachineError(
            f"{target} could not be written ({error.strerror}); its old contents are unchanged. "
            "Free space on that disk, or allow writing there, and run the command again"
        ) from error


@contextmanager
def _renaming(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its name."""
    folder = target.with_name(f".{target.name}.writing")
    with ExitStack() as locks:
        folder.mkdir(exist_ok=True)
        locks.callback(os.close, contents.lock(folder, target))
        if _aside(folder).exists():  # a writer was killed between its two renames
            _undo(_aside(folder), target)
        for path in folder.iterdir():  # files of a killed writer
            contents.remove(path)
        try:
            yield folder
            contents.sync(folder)
            if target.exists():  # keeps other writers out until the exchange is done
                locks.callback(os.close, contents.lock(target, target))
            _exchange(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` with the sizes and hashes of all files in ``folder``.

    Returns:
        The manifest as written.

    Raises:
        BundleError: the manifest is not valid.
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
    """Put unchanged files into the new folder, as hard links if possible, else as copies."""
    for name in names:
        try:
            os.link((source / name).resolve(), folder / name)
        except OSError:
            shutil.copyfile(source / name, folder / name)


def any_inside(path: Path) -> bool:
    """Whether ``path`` is a file, or a folder that contains files of the user."""
    return not path.is_dir() or any(inner.name not in UNLISTED for inner in path.iterdir())


def _aside(folder: Path) -> Path:
    """Temporary name of the old bundle on a file system that cannot exchange two names."""
    return folder.with_name(f"{folder.name}.old")


def _undo(aside: Path, target: Path) -> None:
    """Restore the old bundle's name, unless the new bundle already has it."""
    if target.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(target)


def _exchange(folder: Path, target: Path) -> None:
    """Exchange the names of ``folder`` and ``target`` in one step, if ``target`` exists."""
    if not target.exists():
        folder.rename(target)
    else:
        try:
            if not _renameat2(folder, target):
                _rename_twice(folder, target)
        except OSError as error:
            if error.errno not in _NO_RENAME:
                raise
            contents.move_inside(folder, target)
            return
    contents.sync_folder(target.parent)


def _rename_twice(folder: Path, target: Path) -> None:
    """Exchange two names on a file system that cannot do that in one step."""
    aside = _aside(folder)
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(folder)


def _renameat2(first: Path, second: Path) -> bool:
    """Exchange two names atomically (Linux); False if that is not supported.

    Raises:
        OSError: it is supported and failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))
