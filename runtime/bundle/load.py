"""Loads and verifies a bundle. Every fault is listed; a bundle with faults is not served."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from layerguard.runtime.bundle.contents import finish_interrupted, is_unfinished
from layerguard.runtime.bundle.decision import DECISION, decision_faults
from layerguard.runtime.bundle.files import (
    CHAT_TEMPLATE,
    DETECTORS,
    MANIFEST,
    SIGNATURE,
    TOKENIZER,
    WEIGHTS,
    changed,
    file_faults,
)
from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.manifest import MAX_MANIFEST_BYTES, Manifest, read_manifest
from layerguard.runtime.bundle.npz import read_npz
from layerguard.runtime.bundle.serving import SERVING, serving_faults
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import BundleError
from layerguard.runtime.types import Array

Params = Mapping[str, Mapping[str, Array]]
"""Frozen arrays by detector and name."""

T = TypeVar("T")
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle.

    Attributes:
        path: the folder.
        manifest: the contents of its ``manifest.json``.
        params: frozen parameters by detector; empty before calibration.
        decision: arrays that the decision was calibrated on (``calibration/thresholds``).
        id: the first 16 hex digits of the manifest's sha256. The manifest holds the sha256 of
            every other file, so two bundles with the same id have the same bytes.
    """

    path: Path
    manifest: Manifest
    params: Params
    decision: Mapping[str, Array]
    id: str

    @classmethod
    def load(cls, path: str | Path) -> "Bundle":
        """Read and verify the bundle in folder ``path``, or the installed bundle of that name.

        Raises:
            BundleError: with every fault found; nothing is served.
        """
        folder = find_bundle(path)
        return steadily(folder, lambda: _load(folder))

    @property
    def chat_template(self) -> str | None:
        """The chat template, or None if the model has none.

        Raises:
            BundleError: the file is missing or not UTF-8.
        """
        if CHAT_TEMPLATE not in self.manifest.files:
            return None
        try:
            return (self.path / CHAT_TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fault = f"{CHAT_TEMPLATE} cannot be read ({error}); export the model again"
            raise BundleError(self.path, [fault]) from error

    def check_unchanged(self, graph: str) -> None:
        """Check that the graph and weights are still the files that were verified at loading.

        Args:
            graph: the graph that was opened.

        Raises:
            BundleError: the graph or the weights were replaced.
        """
        files = self.manifest.files
        cards = {name: files[name] for name in (graph, WEIGHTS) if name in files}
        faults = changed(self.path, cards)
        if faults:
            faults.append("the bundle changed after it was loaded; load the guard again")
            raise BundleError(self.path, faults)


def steadily(folder: Path, read: Callable[[], T]) -> T:
    """The result of ``read`` on a folder that did not change while it was read.

    A calibration may replace the folder, or its files, while it is read; then it is read again.

    Raises:
        BundleError: ``read`` raised it on an unchanged folder, or the folder keeps changing.
    """
    for _ in range(_ATTEMPTS):
        try:  # kept open, so that no other folder can get its inode number
            handle = os.open(folder, os.O_PATH)
        except (OSError, ValueError):
            return read()  # it reports what is wrong with the path
        before = _identity(handle, folder)
        try:
            result = read()
        except BundleError:
            if before and _identity(handle, folder) == before:
                raise
        else:
            if before and _identity(handle, folder) == before:
                return result
        finally:
            os.close(handle)
    fault = f"it was replaced {_ATTEMPTS} times while it was read; try again when that is done"
    raise BundleError(folder, [fault])


def _identity(handle: int, folder: Path) -> tuple[object, ...]:
    """Identifies the folder's current manifest; empty if the folder was replaced."""
    try:
        if not os.path.samestat(os.fstat(handle), folder.stat()):
            return ()
    except OSError:
        return ()
    try:
        manifest = (folder / MANIFEST).stat()
    except OSError:
        return (None, is_unfinished(folder))
    return (manifest.st_ino, manifest.st_mtime_ns, is_unfinished(folder))


def _load(folder: Path) -> Bundle:
    unfinished = finish_interrupted(folder)
    if unfinished:
        raise BundleError(folder, [unfinished])
    data = manifest_bytes(folder, "layerguard export")
    manifest, faults = read_manifest(data)
    if manifest is None:
        raise BundleError(folder, faults)
    faults = file_faults(folder, manifest.files, (SIGNATURE,)) + _missing(manifest)
    params: Params = {}
    decision: Mapping[str, Array] = {}
    if manifest.detectors and not faults:
        params, decision, faults = _read_params(folder, manifest)
    if faults:
        raise BundleError(folder, faults)
    return Bundle(folder, manifest, params, decision, hashlib.sha256(data).hexdigest()[:16])


def manifest_bytes(folder: Path, writer: str) -> bytes:
    """The bytes of ``manifest.json`` in a folder that the command ``writer`` writes.

    Raises:
        BundleError: it is missing, not a regular file, or too large.
    """
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe or a device might not end
            raise BundleError(folder, [f"{MANIFEST} is not a file; copy the bundle again"])
        if size > MAX_MANIFEST_BYTES:
            fault = f"{MANIFEST} has {size} bytes; expected at most {MAX_MANIFEST_BYTES}"
            raise BundleError(folder, [fault])
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        fault = f"{MANIFEST}: {reason}; expected a folder that `{writer}` wrote"
        raise BundleError(folder, [fault]) from error


def _missing(manifest: Manifest) -> list[str]:
    """Files that the manifest needs but does not list."""
    needed = {TOKENIZER} | {graph.file for graph in manifest.graphs.values()}
    needed |= {card.file for card in manifest.fused.values()}
    if manifest.detectors:
        needed.add(DETECTORS)
    views = {card.view for card in manifest.detectors.values()}
    if manifest.text.template == "chat" or "trajectory" in views:
        needed.add(CHAT_TEMPLATE)
    return [
        f"manifest.json lists no {name!r}, which the bundle needs; export or calibrate again"
        for name in sorted(needed - manifest.files.keys())
    ]


def _read_params(folder: Path, manifest: Manifest) -> tuple[Params, Mapping[str, Array], list[str]]:
    """The detectors' arrays, the decision's arrays, and every fault."""
    arrays, faults = read_npz(folder / DETECTORS)
    if faults:
        return {}, {}, faults
    params: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        detector, name = key.split("/")
        params.setdefault(detector, {})[name] = array
    decision = params.pop(DECISION, {})
    faults = decision_faults(manifest.decision, decision)
    faults += serving_faults(manifest, params.pop(SERVING, {}))
    faults += [
        f"{DETECTORS} has parameters of {name!r}, which the manifest does not list"
        for name in params.keys() - manifest.detectors.keys()
    ]
    for name, card in manifest.detectors.items():
        if name not in REGISTRY:
            known = ", ".join(sorted(REGISTRY))
            faults.append(
                f"detector {name!r} is unknown to this release (it knows {known}); upgrade"
            )
            continue
        own = params.get(name, {})
        own_faults = REGISTRY[name].faults(own, manifest.model.layers, manifest.model.width)
        if not own_faults and float(own["threshold"]) != card.threshold:
            own_faults.append(
                f"{name}: threshold is {float(own['threshold'])} in {DETECTORS} and "
                f"{card.threshold} in {MANIFEST}; calibrate again"
            )
        faults += own_faults
    return params, decision, faults
