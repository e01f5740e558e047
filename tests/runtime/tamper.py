"""Ways to break a sound bundle, and the one way to ask whether it is refused."""

import json
import signal
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import BundleError, Guard
from layerguard.runtime.bundle.files import card_of
from layerguard.runtime.types import Array


def refused(bundle: Path, *words: str) -> tuple[str, ...]:
    """The faults for which a guard refuses ``bundle``.

    The message must hold every word, in printable lines of a length that a person can read.
    """
    with pytest.raises(BundleError) as caught:
        Guard.load(bundle, threads=1)
    message = str(caught.value)
    assert str(bundle) in message
    assert all(line.isprintable() and len(line) < 1_000 for line in message.splitlines())
    for word in words:
        assert word in message, message
    return caught.value.faults


def manifest_of(bundle: Path) -> Any:
    """The bundle's manifest as plain JSON."""
    return json.loads((bundle / "manifest.json").read_bytes())


def write_manifest(bundle: Path, value: Any) -> Path:
    """Put ``value`` in the manifest's place."""
    (bundle / "manifest.json").write_text(json.dumps(value), encoding="utf-8")
    return bundle


def edit_manifest(bundle: Path, edit: Callable[[Any], None]) -> Path:
    """Let ``edit`` change the manifest in place."""
    value = manifest_of(bundle)
    edit(value)
    return write_manifest(bundle, value)


def set_at(value: Any, path: tuple[str | int, ...], leaf: Any) -> None:
    """Put ``leaf`` at ``path`` of a JSON value."""
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = leaf


def reseal(bundle: Path) -> Path:
    """Make sizes and hashes agree with the files, so that only what is inside them is wrong."""
    files = {
        path.name: {"bytes": card_of(path).bytes, "sha256": card_of(path).sha256}
        for path in bundle.iterdir()
        if path.name != "manifest.json"
    }
    return edit_manifest(bundle, lambda value: value.update(files=files))


def put(bundle: Path, name: str, content: bytes | str) -> Path:
    """Replace one file's content and reseal."""
    data = content if isinstance(content, bytes) else content.encode()
    (bundle / name).write_bytes(data)
    return reseal(bundle)


def arrays_of(bundle: Path) -> dict[str, Array]:
    """The bundle's frozen arrays, writable."""
    with np.load(bundle / "detectors.npz", allow_pickle=False) as archive:
        return {name: np.array(archive[name]) for name in archive.files}


def put_arrays(bundle: Path, changed: Mapping[str, Array | None]) -> Path:
    """Replace arrays (None removes one) and reseal."""
    arrays = {**arrays_of(bundle), **changed}
    kept: dict[str, Any] = {name: value for name, value in arrays.items() if value is not None}
    np.savez(bundle / "detectors.npz", **kept)
    return reseal(bundle)


def put_member(bundle: Path, name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """Replace the bytes of one member of the archive, or add one, and reseal."""
    path = bundle / "detectors.npz"
    with zipfile.ZipFile(path) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in {**members, name: data}.items():
            archive.writestr(item, content, method if item == name else zipfile.ZIP_STORED)
    return reseal(bundle)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail, rather than hang, what takes longer."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
