"""Files that are missing, altered, of another kind, or not the bundle's own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerguard.runtime import BundleError, Guard
from tests.runtime.tamper import edit_manifest, refused, within

_PAYLOAD = ("detectors.npz", "score.onnx", "tokenizer.json")
_ALL = ("manifest.json", *_PAYLOAD)


def _become(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _hidden(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file, so no file can be made unreadable here")


_HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "altered": (_flip, "was altered"),
    "truncated": (lambda p: os.truncate(p, 100), "has 100 bytes"),
    "emptied": (lambda p: os.truncate(p, 0), "has 0 bytes"),
    "one-byte-longer": (_grow, "the manifest says"),
    "a-terabyte": (lambda p: os.truncate(p, 1 << 40), "1099511627776 bytes"),
    "a-folder": (lambda p: _become(p, Path.mkdir), "is not a file"),
    "a-pipe": (lambda p: _become(p, os.mkfifo), "is not a file"),
    "a-device": (lambda p: _become(p, lambda q: q.symlink_to("/dev/zero")), "link to '/dev/zero'"),
    "a-link-to-nothing": (lambda p: _become(p, lambda q: q.symlink_to("gone")), "link to 'gone'"),
    "a-link-to-itself": (lambda p: _become(p, lambda q: q.symlink_to(q.name)), "is a link to"),
    "unreadable": (_hidden, "cannot be read (Permission denied)"),
}


@pytest.mark.parametrize("name", _PAYLOAD)
@pytest.mark.parametrize("harm", _HARMS)
def test_harmed_files_are_named(bundle: Path, name: str, harm: str) -> None:
    """A harmed file is refused by its name, at once and without reading what has no end."""
    change, word = _HARMS[harm]
    change(bundle / name)
    with within(5):
        faults = refused(bundle, name, word)
    assert len(faults) == 1


_MANIFEST_HARMS = {
    "missing": "No such file",
    "emptied": "not JSON",
    "truncated": "not JSON",
    "a-terabyte": "more than 4194304 bytes",
    "a-folder": "not a file",
    "a-pipe": "not a file",
    "a-device": "is a link to '/dev/zero'",
    "a-link-to-nothing": "is a link to 'gone'",
    "a-link-to-itself": "is a link to",
    "unreadable": "Permission denied",
}


@pytest.mark.parametrize("harm", _MANIFEST_HARMS)
def test_a_harmed_manifest_is_named(bundle: Path, harm: str) -> None:
    """The manifest itself may be harmed in the same ways."""
    _HARMS[harm][0](bundle / "manifest.json")
    with within(5):
        refused(bundle, "manifest.json", _MANIFEST_HARMS[harm])


def test_every_harmed_file_is_listed_in_one_run(bundle: Path) -> None:
    """Three harmed files give three faults."""
    for name, harm in zip(_PAYLOAD, ("altered", "missing", "a-folder"), strict=True):
        _HARMS[harm][0](bundle / name)
    assert len(refused(bundle, *_PAYLOAD)) == 3


_UNLISTED: dict[str, Callable[[Path], object]] = {
    "extra.bin": Path.touch,
    ".hidden": Path.touch,
    "weights.data": Path.touch,
    "folder": Path.mkdir,
    "line\nbreak\x1b[2J": Path.touch,
}


@pytest.mark.parametrize("name", _UNLISTED)
def test_unlisted_files_are_named(bundle: Path, name: str) -> None:
    """What the manifest does not list does not travel with the bundle."""
    _UNLISTED[name](bundle / name)
    refused(bundle, ascii(name).strip("'"), "not in the manifest", "remove it")


_TRICKS = {
    "parent": "../sound",
    "absolute": "/etc/passwd",
    "nested": "folder/file",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "hidden": ".hidden",
    "option": "-rf",
    "null": "score\0.onnx",
    "backslash": "..\\score",
    "newline": "score\n.onnx",
    "very-long": "a" * 5_000,
    "not-ascii": "\uff53core.onnx",
    "manifest": "manifest.json",
}


@pytest.mark.parametrize("case", _TRICKS)
def test_names_that_play_tricks_are_refused(bundle: Path, case: str) -> None:
    """Only plain names of files may be listed; what others point to is never opened."""
    card = {"bytes": 0, "sha256": "0" * 64}
    edit_manifest(bundle, lambda value: value["files"].update({_TRICKS[case]: card}))
    (fault,) = refused(bundle, "expected plain names")
    assert "cannot be read" not in fault


@pytest.mark.parametrize("name", ["../score.onnx", "/etc/passwd", "other.onnx", ""])
def test_a_graph_outside_the_list_is_refused(bundle: Path, name: str) -> None:
    """A graph is read only from a file that is listed, and so verified."""
    edit_manifest(bundle, lambda value: value["graphs"]["score"].update(file=name))
    refused(bundle, f"lists no {name!r}")


def _folder(path: Path, kind: str) -> str | Path:
    if kind == "file":
        path.write_text("no folder")
    elif kind == "empty":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    return {"null": "bundle\0", "endless": "b" * 5_000}.get(kind, path)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("missing", "No such file"),
        ("file", "Not a directory"),
        ("empty", "No such file"),
        ("loop", "symbolic links"),
        ("null", "null byte"),
        ("endless", "name too long"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, kind: str, word: str) -> None:
    """A path that leads to no bundle is refused with what stands there and what was expected."""
    path = _folder(tmp_path / "place", kind)
    with pytest.raises(BundleError, match="expected a folder that `layerguard export` wrote") as e:
        Guard.load(path)
    assert word in str(e.value)
