"""Bundles that are damaged, from the future or half written, and disks that are full."""

import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Guard, InputError, MachineError
from layerguard.runtime.bundle.write import replacing
from tests.attacks.attack import Attack
from tests.runtime.tamper import arrays_of, edit_manifest, put_arrays, refused
from tests.tiny import make_bundle


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


_HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "altered": (_flip, "was altered"),
    "truncated": (lambda path: os.truncate(path, 100), "has 100 bytes"),
    "oversized": (lambda path: os.truncate(path, 1 << 40), "1099511627776 bytes"),
    "in a pipe": (_pipe, "is not a file"),
}


def _harmed(case: str, folder: Path) -> None:
    """All three files are listed, each by its name."""
    change, words = _HARMS[case]
    bundle = make_bundle(folder / "bundle")
    names = ("detectors.npz", "score.onnx", "tokenizer.json")
    for name in names:
        change(bundle / name)
    assert len(refused(bundle, words, *names)) == len(names)


_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "of another dtype": lambda array: array.astype(np.float64),
    "of another shape": lambda array: array[:, :-1].copy(),
    "that is not finite": lambda array: array * np.float32(np.nan),
}


def _array(case: str, folder: Path) -> None:
    bundle = make_bundle(folder / "bundle")
    changed = _ARRAYS[case](arrays_of(bundle)["lcf/mu"])
    refused(put_arrays(bundle, {"lcf/mu": changed}), "mu")


def _manifest(change: dict[str, Any], words: str, folder: Path) -> None:
    bundle = make_bundle(folder / "bundle")
    refused(edit_manifest(bundle, lambda value: value.update(change)), words)


def _content(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def _full_disk(folder: Path) -> None:
    """Writing fails as on a full disk; the old bundle stays whole."""
    bundle = make_bundle(folder / "bundle")
    before = _content(bundle)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
    with pytest.raises(MachineError, match="its old contents are unchanged"):
        make_bundle(bundle)
    assert _content(bundle) == before


def _killed_writer(folder: Path) -> None:
    """A writer that is killed has changed nothing, and the next one can write."""
    bundle = make_bundle(folder / "bundle")
    before = _content(bundle)
    writer = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(bundle,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert _content(bundle) == before
    assert Guard.load(make_bundle(bundle), threads=1).check("the garden").status == "ok"


def _write_and_die(bundle: Path) -> None:
    with replacing(bundle) as temporary:
        (temporary / "manifest.json").write_text("half a manif", encoding="ascii")
        os.kill(os.getpid(), signal.SIGKILL)


def _two_writers(folder: Path) -> None:
    """The second is told so, and readers are served."""
    bundle = make_bundle(folder / "bundle")
    with replacing(bundle) as temporary:
        shutil.copytree(bundle, temporary, dirs_exist_ok=True)
        assert Guard.load(bundle, threads=1).check("the garden").status == "ok"
        with pytest.raises(InputError, match="being written by another process"):
            make_bundle(bundle)


ATTACKS = (
    *(Attack(f"files: {case}", partial(_harmed, case)) for case in _HARMS),
    *(Attack(f"an array {case}", partial(_array, case)) for case in _ARRAYS),
    Attack("a manifest of the future", partial(_manifest, {"schema": 999}, "schema")),
    Attack("a manifest with an unknown key", partial(_manifest, {"odd": 1}, "odd")),
    Attack("a full disk", _full_disk),
    Attack("a writer that is killed", _killed_writer),
    Attack("two writers", _two_writers),
)
