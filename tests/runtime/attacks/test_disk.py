"""Disks that fill up, writers that die or meet: the old bundle stays whole."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerguard.runtime import Bundle, Guard, InputError, MachineError
from layerguard.runtime.bundle import write
from layerguard.runtime.bundle.write import replacing
from tests.tiny import make_bundle, make_params


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


_WRITER = """
import sys, time
from pathlib import Path
from layerguard.runtime.bundle.write import replacing
with replacing(Path(sys.argv[1])) as folder:
    (folder / "manifest.json").write_text("half a manif")
    (folder / "leftover.bin").write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(60)
"""


def _start_writer(target: Path) -> subprocess.Popen[str]:
    """Another process that has begun to replace ``target``."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def _stop(writer: subprocess.Popen[str], how: signal.Signals) -> None:
    writer.send_signal(how)
    writer.communicate()


def test_a_killed_writer_leaves_the_old_bundle(bundle: Path) -> None:
    """Killed half-way, a writer has changed nothing, and the next one is not in its way."""
    before = _content(bundle)
    _stop(_start_writer(bundle), signal.SIGKILL)
    assert _content(bundle) == before
    assert Guard.load(bundle, threads=1).check("the garden").status == "ok"
    make_bundle(bundle, {"lcf": make_params()["lcf"]})
    assert list(Bundle.load(bundle).params) == ["lcf"]
    assert _content(bundle).keys() == before.keys()
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_an_interrupted_writer_cleans_up(bundle: Path) -> None:
    """Interrupted from the keyboard, a writer takes its half-made folder away."""
    before = _content(bundle)
    writer = _start_writer(bundle)
    writer.send_signal(signal.SIGINT)
    writer.communicate()
    assert _content(bundle) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_a_second_writer_is_told_so(bundle: Path) -> None:
    """While one process writes a bundle, another is refused; readers are not."""
    writer = _start_writer(bundle)
    try:
        with pytest.raises(InputError, match="being written by another process"):
            make_bundle(bundle)
        assert Guard.load(bundle, threads=1).check("the garden").status == "ok"
    finally:
        _stop(writer, signal.SIGKILL)
    make_bundle(bundle)


def test_a_second_writer_in_one_process_is_told_so(bundle: Path) -> None:
    """Threads of one process are kept apart too."""
    with (
        replacing(bundle),
        pytest.raises(InputError, match="being written"),
        replacing(bundle),
    ):
        pytest.fail("two writers met")


def test_a_writer_that_comes_at_the_last_moment_is_told_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the exchange of names and the removal of the old folder no other writer slips in."""
    exchange = write._exchange

    def exchange_and_meet(folder: Path, target: Path) -> None:
        exchange(folder, target)
        with pytest.raises(InputError, match="being written by another process"), replacing(target):
            pytest.fail("two writers met")

    monkeypatch.setattr(write, "_exchange", exchange_and_meet)
    make_bundle(bundle)
    monkeypatch.undo()
    assert Bundle.load(make_bundle(bundle)).id


def test_a_writer_that_waited_on_a_folder_now_gone_is_told_so(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a folder that another writer has meanwhile put elsewhere is no lock."""

    def lock_too_late(*_: int) -> None:
        (tmp_path / ".bundle.writing").rename(tmp_path / "elsewhere")
        (tmp_path / ".bundle.writing").mkdir()

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with pytest.raises(InputError, match="was just written by another process"):
        make_bundle(bundle)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("stage", ["writing", "syncing"])
def test_a_full_disk_leaves_the_old_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, stage: str, code: int
) -> None:
    """A disk that fails, at whichever stage, gives an error of the machine and changes nothing."""
    before = _content(bundle)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    if stage == "writing":
        monkeypatch.setattr(Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="its old contents are unchanged") as caught:
        make_bundle(bundle)
    monkeypatch.undo()
    assert os.strerror(code) in str(caught.value)
    assert _content(bundle) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_an_error_of_the_caller_passes_and_leaves_the_old_bundle(bundle: Path) -> None:
    """What goes wrong while the new files are made is the caller's own error."""
    before = _content(bundle)
    with pytest.raises(FileNotFoundError), replacing(bundle):
        Path("nowhere/at/all").read_bytes()
    assert _content(bundle) == before


def _file(path: Path) -> Path:
    path.write_text("mine")
    return path


def _photographs(path: Path) -> Path:
    path.mkdir()
    (path / "photograph.jpg").write_bytes(b"mine")
    return path


@pytest.mark.parametrize("make", [_file, _photographs])
def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path, make: object) -> None:
    """A file, or a folder of other things, is never replaced."""
    assert callable(make)
    target = make(tmp_path / "target")
    with pytest.raises(InputError, match=r"exists and is not a bundle.*name a new folder"):
        make_bundle(target)
    assert target.is_file() or (target / "photograph.jpg").read_bytes() == b"mine"


def test_a_bundle_needs_a_folder_to_stand_in(tmp_path: Path) -> None:
    """Parents are not made in silence."""
    with pytest.raises(InputError, match="is not a folder; expected an existing one"):
        make_bundle(tmp_path / "no" / "where" / "bundle")


def test_a_new_or_an_empty_folder_becomes_the_bundle(tmp_path: Path) -> None:
    """Nothing has to stand there before; an empty folder may."""
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert Bundle.load(make_bundle(tmp_path / name)).id


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    """Writing through a link replaces the bundle it points to, again and again, and no other."""
    target = make_bundle(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    for detector in ("lcf", "siren", "lcf"):
        make_bundle(tmp_path / "current", {detector: make_params()[detector]})
        assert list(Bundle.load(target).params) == [detector]
        assert (tmp_path / "current").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


def test_a_link_in_the_writers_place_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    """A link laid where the new folder is to be made leads no writer astray."""
    precious = _photographs(tmp_path / "precious")
    (tmp_path / ".bundle.writing").symlink_to(precious)
    with pytest.raises(InputError, match="being written by another process"):
        make_bundle(bundle)
    assert (precious / "photograph.jpg").exists()


def test_names_are_exchanged_where_the_file_system_cannot(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an atomic exchange two renames do."""
    monkeypatch.setattr(write, "_renameat2", lambda *_: False)
    make_bundle(bundle, {"lcf": make_params()["lcf"]})
    assert list(Bundle.load(bundle).params) == ["lcf"]
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


@pytest.mark.parametrize("renamed", [False, True])
def test_a_writer_killed_between_two_renames_is_mended(tmp_path: Path, renamed: bool) -> None:
    """Where names cannot be exchanged, the next writer puts right what a killed one left."""
    target = make_bundle(tmp_path / "bundle")
    aside = tmp_path / ".bundle.writing.old"
    if renamed:  # killed before the second rename: only the old bundle is whole
        target.rename(aside)
    else:  # killed after it: the new one has the name
        shutil.copytree(target, aside)
    with pytest.raises(ZeroDivisionError), replacing(target):
        _ = 1 // 0
    assert Bundle.load(target)
    assert not aside.exists()
