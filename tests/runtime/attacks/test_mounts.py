"""Bundles on mount points and on file systems that lack a rename, a lock or a writable parent."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerguard.runtime import Bundle, BundleError, Guard, InputError, MachineError
from layerguard.runtime.bundle import contents, write
from layerguard.runtime.bundle.files import MOVING, READY, STAGED
from layerguard.runtime.bundle.write import replacing
from tests.tiny import make_bundle, make_params

LCF = {"lcf": make_params()["lcf"]}


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(params=["tmpfs", "bind"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A bundle in a folder that is a mount point: of a file system of its own, or of the same."""
    target, source = tmp_path / "a volume", tmp_path / "source"
    target.mkdir()
    source.mkdir()
    how = ["-t", "tmpfs", "none"] if request.param == "tmpfs" else ["--bind", str(source)]
    try:
        done = subprocess.run(["mount", *how, str(target)], capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount command here: bundles on mount points are not tested")
    if done.returncode != 0:
        pytest.skip("this user may not mount: bundles on mount points are not tested")
    try:
        yield make_bundle(target)
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_bundle_on_a_mount_point_is_replaced(mounted: Path) -> None:
    """A container's volume takes a first bundle and a second one, and holds nothing else."""
    before = _content(mounted)
    make_bundle(mounted, LCF)
    assert list(Bundle.load(mounted).params) == ["lcf"]
    assert sorted(path.name for path in mounted.iterdir()) == sorted(before)
    assert Guard.load(mounted, threads=1).check("the garden").status == "ok"


def test_a_failed_writer_leaves_the_bundle_on_a_mount_point(mounted: Path) -> None:
    """What goes wrong before the new bundle is complete changes nothing."""
    before = _content(mounted)

    def fail() -> None:
        with replacing(mounted) as folder:
            (folder / "manifest.json").write_text("half a manif")
            assert list(Bundle.load(mounted).params) == list(make_params())  # readers go on
            _ = 1 // 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _content(mounted) == before
    assert not (mounted / STAGED).exists()


def test_a_second_writer_on_a_mount_point_is_told_so(mounted: Path) -> None:
    """Two writers cannot meet there either."""
    with (
        replacing(mounted),
        pytest.raises(InputError, match="being written by another process"),
        replacing(mounted),
    ):
        pytest.fail("two writers met")


def test_a_new_volume_with_lost_and_found_takes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that ext4 makes at a volume's root is neither a user's file nor a fault."""
    monkeypatch.setattr(contents, "must_stay", lambda _: True)
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    for detectors in (None, LCF):
        assert Bundle.load(make_bundle(tmp_path / "volume", detectors)).id
    assert (tmp_path / "volume" / "lost+found").is_dir()


def _refuse(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES])
def test_a_folder_that_cannot_be_renamed_gets_new_contents(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where neither an exchange nor a rename of the folder is to be had, its files are replaced."""
    names = sorted(path.name for path in bundle.iterdir())
    rename = Path.rename

    def rename_but(path: Path, other: Path) -> Path:
        if path == bundle:
            _refuse(code)()
        return rename(path, other)

    monkeypatch.setattr(write, "_renameat2", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename_but)
    make_bundle(bundle, LCF)
    assert list(Bundle.load(bundle).params) == ["lcf"]
    assert sorted(path.name for path in bundle.iterdir()) == names
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


@pytest.mark.parametrize(
    "code", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP]
)
def test_a_file_system_without_an_exchange_takes_two_renames(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Overlayfs, NFS and FUSE name the missing exchange each in their own way."""

    class Library:
        @staticmethod
        def renameat2(*_: object) -> int:
            return -1

    monkeypatch.setattr(write.ctypes, "CDLL", lambda *_, **__: Library)
    monkeypatch.setattr(write.ctypes, "get_errno", lambda: code)
    make_bundle(bundle, LCF)
    assert list(Bundle.load(bundle).params) == ["lcf"]
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_a_second_rename_that_fails_gives_the_old_bundle_its_name_back(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two renames nothing has the name; a failure there does not last."""
    before, rename = _content(bundle), Path.rename

    def rename_but(path: Path, other: Path) -> Path:
        if path.name == ".bundle.writing" and other == bundle:
            _refuse(errno.EIO)()
        return rename(path, other)

    monkeypatch.setattr(write, "_renameat2", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename_but)
    with pytest.raises(MachineError, match="its old contents are unchanged"):
        make_bundle(bundle, LCF)
    assert _content(bundle) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_a_parent_that_may_not_be_written_is_not(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new files then stand inside the bundle's folder from the first."""
    access, parent = os.access, bundle.parent
    monkeypatch.setattr(os, "access", lambda path, mode: path != parent and access(path, mode))
    with replacing(bundle) as folder:
        assert folder == bundle / STAGED
        assert sorted(path.name for path in parent.iterdir()) == ["bundle"]
        make_bundle(parent / "other", LCF)
        for path in (parent / "other").iterdir():
            path.rename(folder / path.name)
    assert list(Bundle.load(bundle).params) == ["lcf"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_is_no_other_process(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where nothing can be locked a bundle is written all the same."""
    monkeypatch.setattr(fcntl, "flock", _refuse(code))
    make_bundle(bundle, LCF)
    assert list(Bundle.load(bundle).params) == ["lcf"]


def test_a_lock_that_fails_is_an_error_of_the_machine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails under a lock is not another process either."""
    monkeypatch.setattr(fcntl, "flock", _refuse(errno.EIO))
    with pytest.raises(MachineError, match="Input/output error"):
        make_bundle(bundle)


_STEPS = ("mkdir", "rename", "replace", "rmdir", "unlink")
_KILLED = 9


def _die_before(steps: int) -> None:
    """Let this process end before its step ``steps``, counted from 0."""
    count = iter(range(steps))

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **named: object) -> object:
            if next(count, None) is None:
                os._exit(_KILLED)
            return real(*given, **named)

        return step

    for name in _STEPS:
        setattr(os, name, dying(getattr(os, name)))


def _write_until(target: Path, new: Path, steps: int) -> bool:
    """Replace a bundle in a process that dies before its step ``steps``; whether it died.

    A step is whatever changes a folder.
    """
    child = os.fork()
    if child == 0:
        try:
            _die_before(steps)
            with replacing(target) as folder:
                for path in new.iterdir():
                    (folder / path.name).write_bytes(path.read_bytes())
            os._exit(0)
        finally:  # a child must never go on with the tests
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _KILLED)
    return code == _KILLED


@pytest.mark.parametrize("finisher", ["reader", "writer", "nobody"])
def test_a_writer_killed_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finisher: str
) -> None:
    """A reader sees the old bundle or the new one, or is told; whoever may write finishes it."""
    monkeypatch.setattr(contents, "must_stay", lambda path: path.name == "target" and path.is_dir())
    old, new = make_bundle(tmp_path / "old"), make_bundle(tmp_path / "new", LCF)
    ids = {Bundle.load(old).id, Bundle.load(new).id}
    seen: list[str] = []
    for steps in range(100):
        target = tmp_path / str(steps) / "target"
        target.mkdir(parents=True)
        for path in old.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        killed = _write_until(target, new, steps)
        unfinished = contents.is_unfinished(target)
        if finisher == "nobody" and unfinished:
            with monkeypatch.context() as patch:
                patch.setattr(contents, "_WAITS", 1)
                patch.setattr(contents, "lock", _refuse(errno.EACCES))
                with pytest.raises(BundleError, match=r"a writer was interrupted.*Permission"):
                    Bundle.load(target)
        if finisher == "writer":
            with pytest.raises(ZeroDivisionError), replacing(target):
                _ = 1 // 0
        found = Bundle.load(target).id
        assert found in ids
        assert not unfinished or found == Bundle.load(new).id
        seen.append(found)
        if not killed:
            break
    assert not killed
    assert set(seen) == ids
    assert seen == sorted(seen, key=lambda found: found == Bundle.load(new).id)  # old, then new
    assert not {READY, MOVING} & {path.name for path in target.iterdir()}
