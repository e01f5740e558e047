"""Replaces a bundle's files inside its folder, if the folder itself cannot be renamed.

A mount point (a container's volume) cannot be renamed, and neither can a folder whose parent is not
writable. The new files are written to a hidden folder inside. Renaming that folder is the commit:
from then on the new bundle is complete on the disk, the old files are removed and the new files are
moved to their place. If the process is interrupted, the next process that opens the bundle and may
write there finishes the work.
"""

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerguard.runtime.bundle.files import MANIFEST, MOVING, READY, STAGED, UNLISTED
from layerguard.runtime.errors import InputError, MachineError

_MOUNTS = Path("/proc/self/mountinfo")
_NO_LOCKS = (
    errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL,
    errno.EBADF,  # NFS, which needs a file that is open for writing
)  # fmt: skip
_WAITS = 20
_WAIT_SECONDS = 0.05


def must_stay(target: Path) -> bool:
    """Whether ``target`` is a folder that cannot be renamed, so its files must be replaced."""
    return target.is_dir() and (_is_mount_point(target) or not os.access(target.parent, os.W_OK))


@contextmanager
def replacing_contents(target: Path) -> Iterator[Path]:
    """A new, empty folder inside ``target`` whose files replace those of ``target``.

    Raises:
        InputError: another process is writing ``target``.
        MachineError: the files could not be moved; the message says where the new files are.
        OSError: an earlier operation failed; ``target`` is unchanged.
    """
    with ExitStack() as locks:
        locks.callback(os.close, lock(target, target))
        finish(target)
        folder = target / STAGED
        remove(folder)
        folder.mkdir()
        try:
            yield folder
            sync(folder)
            folder.rename(target / READY)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        finish(target)


def move_inside(folder: Path, target: Path) -> None:
    """Replace the files of ``target`` by those of ``folder``, which is outside ``target``.

    The caller must hold the lock of ``target``.

    Raises:
        MachineError, OSError: as ``replacing_contents``.
    """
    finish(target)
    inner = target / STAGED
    remove(inner)
    inner.mkdir()
    try:
        for path in folder.iterdir():
            shutil.move(path, inner / path.name)
        sync(inner)
        inner.rename(target / READY)
    finally:
        shutil.rmtree(inner, ignore_errors=True)
    finish(target)


def is_unfinished(target: Path) -> bool:
    """Whether a writer was interrupted after its new bundle was complete."""
    try:
        return (target / READY).is_dir() or (target / MOVING).is_dir()
    except OSError:  # a path that the system rejects; the reader reports it
        return False


def finish(target: Path) -> None:
    """Move the complete new bundle to its place; continues after any interruption.

    The caller must hold the lock of ``target``.

    Raises:
        MachineError: a file operation failed.
    """
    ready, moving = target / READY, target / MOVING
    try:
        if ready.is_dir():
            for path in target.iterdir():
                if path.name not in UNLISTED:
                    remove(path)
            sync_folder(target)
            ready.rename(moving)  # from here on, all files of ``target`` are new files
            sync_folder(target)
        if moving.is_dir():
            for path in sorted(moving.iterdir(), key=lambda path: path.name == MANIFEST):
                path.replace(target / path.name)
            sync_folder(target)
            moving.rmdir()
    except OSError as error:
        raise MachineError(
            f"{target}: the new bundle is complete in its folders {READY} and {MOVING}, but its "
            f"files could not be moved from there ({error.strerror}). Allow writing there; the "
            "next command on this bundle then finishes the move"
        ) from error


def finish_interrupted(target: Path) -> str | None:
    """Finish the work of an interrupted writer; return why that failed, or None on success."""
    fault = None
    for attempt in range(_WAITS):
        if not is_unfinished(target):
            return None
        try:
            with ExitStack() as locks:
                locks.callback(os.close, lock(target, target))
                finish(target)
        except (InputError, MachineError) as error:
            fault = str(error)
        except OSError as error:
            fault = f"{error.strerror}: run a command on it as a user who may write there"
        if fault and attempt + 1 < _WAITS:
            time.sleep(_WAIT_SECONDS)  # a running writer finishes within the total waiting time
    return f"its files are being replaced, or a writer was interrupted ({fault})"


def lock(folder: Path, target: Path) -> int:
    """Lock ``folder`` exclusively; returns the open descriptor that holds the lock.

    On a file system without locks, the lock is always granted, so writers are not excluded.

    Raises:
        InputError: another process holds the lock, or has just replaced the folder.
        OSError: the folder cannot be opened.
    """
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        fault = "was just written by another process; run the command again"
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
            raise
        fault = f"is being written by another process ({error.strerror}); wait until it is done"
    if descriptor >= 0:
        os.close(descriptor)
    raise InputError(f"{target} {fault}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Flush the files of a folder, and the folder itself, to the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, if the file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _is_mount_point(path: Path) -> bool:
    """Whether ``path`` is a mount point, including a bind mount of the same disk."""
    if os.path.ismount(path):
        return True
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    # the fifth field is the mount point, with octal escapes such as \040 for a space
    mount_points = (line.split(" ")[4] for line in lines)
    return str(path) in (
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in mount_points
    )
