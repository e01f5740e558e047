"""Writing a bundle atomically: a neighbouring folder, fsync, then one exchange of names.

A killed or failed writer leaves the old bundle as it was. Two writers cannot meet: the second is
told so. Where the folder cannot be renamed, its files are replaced instead (``contents.py``).
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
"""Of a folder: a mount point, a lower layer of overlayfs, a parent that may not be written."""
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
    is_bundle = (target / MANIFEST).is_file() or contents.is_unfinished(target)
    if target.exists() and not is_bundle and any_inside(target):
        raise InputError(
            f"{target} exists and is not a bundle (no {MANIFEST}); name a new folder, or empty it"
        )
    replacing_it = contents.replacing_contents if contents.must_stay(target) else _renaming
    try:
        with replacing_it(target) as folder:
            yield folder
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise MachineError(
            f"{target} could not be written ({error.strerror}); what stood there is untouched. "
            "Make room on that disk, or permit writing there, and run the command again"
        ) from error


@contextmanager
def _renaming(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its name."""
    folder = target.with_name(f".{target.name}.writing")
    with ExitStack() as held:
        folder.mkdir(exist_ok=True)
        held.callback(os.close, contents.lock(folder, target))
        if _aside(folder).exists():  # a writer was killed between its two renames
            _undo(_aside(folder), target)
        for path in folder.iterdir():  # what a killed writer left
            contents.remove(path)
        try:
            yield folder
            contents.sync(folder)
            if target.exists():  # it takes the new folder's name: nobody may write there yet
                held.callback(os.close, contents.lock(target, target))
            _exchange(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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
    """Whether ``path`` is a file, or a folder with something of the user's in it."""
    return not path.is_dir() or any(inner.name not in UNLISTED for inner in path.iterdir())


def _aside(folder: Path) -> Path:
    """Where the old bundle waits on a file system that cannot exchange two names."""
    return folder.with_name(f"{folder.name}.old")


def _undo(aside: Path, target: Path) -> None:
    """Give the old bundle its name back, unless the new one has it already."""
    if target.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(target)


def _exchange(folder: Path, target: Path) -> None:
    """Give ``folder`` the name ``target`` in one step; what stood there takes ``folder``'s name."""
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
    """Exchange two names on a file system that cannot do it in one step."""
    aside = _aside(folder)
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(folder)


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
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))
