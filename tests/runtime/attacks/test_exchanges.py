"""Files that are exchanged while a bundle is loaded: what is served is what was verified."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Bundle, BundleError, Guard
from layerguard.runtime.bundle import steady
from layerguard.runtime.bundle.steady import stamps, steadily
from layerguard.runtime.bundle.write import seal
from tests import tiny_decoder
from tests.runtime.model.test_mapped import put_outside

_TRIES = 10
"""Guards loaded in a test; each makes up to three attempts."""

_EXCHANGE = """
import ctypes, os, sys, time
call = ctypes.CDLL(None).renameat2
print("ready", flush=True)
one, other = map(os.fsencode, sys.argv[1:])
while True:
    call(-100, one, -100, other, 2)
    time.sleep(0.0005)
"""

_REWRITE = """
import os, sys, time
one, other = (open(path, "rb").read() for path in sys.argv[1:])
descriptor = os.open(sys.argv[1], os.O_WRONLY)
print("ready", flush=True)
while True:
    for data in (other, one):
        os.pwrite(descriptor, data, 0)
        time.sleep(0.002)
"""


@pytest.fixture(autouse=True)
def _few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "_ATTEMPTS", 3)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A toy decoder with external weights, two folders deep; ``bad.data`` lies beside the top."""
    folder = tmp_path / "top" / "bundle"
    folder.parent.mkdir()
    tiny_decoder.make_bundle(folder)
    manifest = Bundle.load(folder).manifest
    seal(put_outside(folder), manifest)
    weights = np.frombuffer((folder / "weights.data").read_bytes(), np.float32)
    (tmp_path / "bad.data").write_bytes((weights * 1.5).tobytes())
    return folder


@contextmanager
def _running(source: str, *paths: Path) -> Iterator[None]:
    command = [sys.executable, "-c", source, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def _served(folder: Path, weights: str) -> dict[str, float] | None:
    """The scores of a guard that was loaded meanwhile; None if the bundle was refused."""
    try:
        guard = Guard.load(folder, threads=1, weights=weights)  # type: ignore[arg-type]
    except BundleError:
        return None
    return {name: reading.score for name, reading in guard.check("the garden").readings.items()}


@pytest.mark.parametrize("weights", ["packed", "mapped"])
def test_exchanged_weights_are_never_served(outside: Path, tmp_path: Path, weights: str) -> None:
    """Weights that are exchanged all the time, there and back, give the right scores or a fault."""
    expected = _served(outside, weights)
    with _running(_EXCHANGE, outside / "weights.data", tmp_path / "bad.data"):
        found = [_served(outside, weights) for _ in range(_TRIES)]
    assert all(scores in (None, expected) for scores in found)


def test_an_exchanged_folder_above_is_never_served(outside: Path, tmp_path: Path) -> None:
    """Nor are those of a folder that takes the place of one above the bundle for a while."""
    expected = _served(outside, "packed")
    other = tmp_path / "other" / "bundle"
    other.mkdir(parents=True)
    for path in outside.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "weights.data").write_bytes((tmp_path / "bad.data").read_bytes())
    with _running(_EXCHANGE, outside.parent, other.parent):
        found = [_served(outside, "packed") for _ in range(_TRIES)]
    assert all(scores in (None, expected) for scores in found)


def test_another_folder_in_the_same_place_is_not_read(outside: Path, tmp_path: Path) -> None:
    """A folder is held while it is read, so a folder that takes its path does not matter."""
    other = tmp_path / "other"
    (other / "bundle").mkdir(parents=True)
    (other / "bundle" / "weights.data").write_bytes(b"bad")

    def read(place: Path) -> bytes:
        outside.parent.rename(tmp_path / "aside")
        other.rename(outside.parent)
        try:
            return (place / "weights.data").read_bytes()
        finally:
            outside.parent.rename(other)
            (tmp_path / "aside").rename(outside.parent)

    assert steadily(outside, read) == (outside / "weights.data").read_bytes() != b"bad"


def test_rewritten_weights_are_not_served(outside: Path, tmp_path: Path) -> None:
    """Weights that are written in place while the bundle is loaded are refused."""
    expected = _served(outside, "packed")
    with _running(_REWRITE, outside / "weights.data", tmp_path / "bad.data"):
        found = [_served(outside, "packed") for _ in range(_TRIES)]
    assert all(scores in (None, expected) for scores in found)


def test_a_change_that_is_undone_is_seen(outside: Path, tmp_path: Path) -> None:
    """The folder is read again if a file was exchanged, there and back, within the reading."""
    reads = []

    def read(place: Path) -> int:
        reads.append(place)
        if len(reads) == 1:
            (outside / "weights.data").rename(tmp_path / "aside")
            (tmp_path / "aside").rename(outside / "weights.data")
        return len(reads)

    assert steadily(outside, read) == 2


def test_a_change_within_one_step_of_the_clock_is_seen(outside: Path) -> None:
    """Stamps are taken only when the last change is older than the step of the clock."""
    (outside / "weights.data").touch()
    before = time.time_ns()
    changed = stamps(outside)["weights.data"][-1]
    assert time.time_ns() - before > 0
    assert time.time_ns() - changed >= 20_000_000


def test_a_graph_that_changed_after_loading_is_not_opened(outside: Path) -> None:
    """The decode graph is opened on first use: by its stamp, or else by its hash."""
    guard = Guard.load(outside, threads=1)
    sound = (outside / "weights.data").read_bytes()
    (outside / "weights.data").write_bytes(sound[::-1])
    with pytest.raises(BundleError, match="the bundle changed after it was loaded"):
        guard.stream(prompt="the garden").push(" was")
    (outside / "weights.data").write_bytes(sound)  # another stamp, the same bytes
    assert guard.stream(prompt="the garden").push(" was").status == "ok"


@pytest.mark.parametrize("name", ["tokenizer.json", "score.onnx"])
def test_what_is_read_is_what_was_hashed(outside: Path, name: str) -> None:
    """A file that changed since the bundle was verified is not read."""
    bundle = Bundle.load(outside)
    assert bundle.read(name) == (outside / name).read_bytes()
    (outside / name).write_bytes((outside / name).read_bytes()[::-1])
    with pytest.raises(BundleError, match=f"{name} changed after the bundle was verified"):
        bundle.read(name)


def test_a_change_while_a_graph_is_opened_is_refused(outside: Path, tmp_path: Path) -> None:
    """Even if it is undone before the graph is open."""
    bundle = Bundle.load(outside)

    def open_meanwhile() -> None:
        with bundle.opened("decode.onnx") as graph:
            assert graph.read_bytes() == (outside / "decode.onnx").read_bytes()
            (outside / "weights.data").rename(tmp_path / "aside")
            (tmp_path / "aside").rename(outside / "weights.data")

    with pytest.raises(BundleError, match=r"a file changed while decode\.onnx was opened"):
        open_meanwhile()
