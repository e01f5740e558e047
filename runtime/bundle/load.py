"""Loads and verifies a bundle. Every fault is listed; a bundle with faults is not served."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from layerguard.runtime.bundle.decision import DECISION, decision_faults
from layerguard.runtime.bundle.files import (
    CHAT_TEMPLATE,
    DETECTORS,
    MANIFEST,
    SIGNATURE,
    TOKENIZER,
    WEIGHTS,
    altered,
    file_faults,
    link_fault,
)
from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.manifest import (
    ADDED_KINDS,
    MAX_MANIFEST_BYTES,
    GraphCard,
    Manifest,
    added_outputs,
    read_manifest,
)
from layerguard.runtime.bundle.npz import read_npz
from layerguard.runtime.bundle.serving import SERVING, serving_faults
from layerguard.runtime.bundle.steady import Stamp, pinned, stamps, steadily
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import BundleError
from layerguard.runtime.regular_files import read_regular
from layerguard.runtime.types import ADDED, Array

Params = Mapping[str, Mapping[str, Array]]
"""Frozen arrays by detector and name."""


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
        stamps: the state of the folder in which its files were verified (``steady.py``).
    """

    path: Path
    manifest: Manifest
    params: Params
    decision: Mapping[str, Array]
    id: str
    stamps: Mapping[str, Stamp] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> "Bundle":
        """Read and verify the bundle in folder ``path``, or the installed bundle of that name.

        Raises:
            BundleError: with every fault found; nothing is served.
        """
        folder = find_bundle(path)
        return steadily(folder, lambda place: read_bundle(place, folder))

    @property
    def is_signed(self) -> bool:
        """Whether there is a signature in the folder; it is not verified (``load_verified``)."""
        return SIGNATURE in self.stamps

    @property
    def chat_template(self) -> str | None:
        """The chat template, or None if the model has none.

        Raises:
            BundleError: the file is not UTF-8, or changed after it was verified.
        """
        if CHAT_TEMPLATE not in self.manifest.files:
            return None
        try:
            return self.read(CHAT_TEMPLATE).decode()
        except UnicodeDecodeError as error:
            fault = f"{CHAT_TEMPLATE} cannot be read ({error}); export the model again"
            raise BundleError(self.path, [fault]) from error

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, which are the ones that its sha256 is of.

        Raises:
            BundleError: the file changed after it was verified.
        """
        card = self.manifest.files[name]
        fault = f"{name} changed after the bundle was verified; load it again"
        try:
            with pinned(self.path) as place:
                data = read_regular(place / name, card.bytes)
        except OSError as error:
            raise BundleError(self.path, [f"{fault} ({error.strerror})"]) from error
        if hashlib.sha256(data).hexdigest() != card.sha256:
            raise BundleError(self.path, [fault])
        return data

    @contextmanager
    def opened(self, graph: str) -> Iterator[Path]:
        """A path of a graph that is the verified one, as are its weights, until the block ends.

        They are hashed again if anything in the folder changed since the bundle was loaded.

        Args:
            graph: name of the graph's file.

        Raises:
            BundleError: the graph or the weights are not the verified ones, or the folder changed
                within the block.
        """
        files = self.manifest.files
        cards = {name: files[name] for name in (graph, WEIGHTS) if name in files}
        try:
            with pinned(self.path) as place:
                before = stamps(place)
                if before != self.stamps:
                    self._refuse(altered(place, cards))
                yield place / graph
                if stamps(place) != before:
                    self._refuse([f"a file changed while {graph} was opened"])
        except OSError as error:
            self._refuse([f"the folder cannot be read ({error.strerror})"])

    def _refuse(self, faults: list[str]) -> None:
        if faults:
            faults.append("the bundle changed after it was loaded; load the guard again")
            raise BundleError(self.path, faults)


def read_bundle(place: Path, path: Path) -> Bundle:
    """Read and verify a bundle once, within ``steadily``.

    Args:
        place: where ``steadily`` holds the folder.
        path: the folder's path, for the bundle.

    Raises:
        BundleError: with every fault found.
    """
    seen = stamps(place)
    data = manifest_bytes(place, "layerguard export")
    manifest, faults = read_manifest(data)
    if manifest is None:
        raise BundleError(place, faults)
    faults = file_faults(place, manifest.files, (SIGNATURE,)) + _missing(manifest)
    params: Params = {}
    decision: Mapping[str, Array] = {}
    if manifest.detectors and not faults:
        params, decision, faults = _read_params(place, manifest)
    if faults:
        raise BundleError(place, faults)
    identity = hashlib.sha256(data).hexdigest()[:16]
    return Bundle(path, manifest, params, decision, identity, seen)


def manifest_bytes(folder: Path, writer: str) -> bytes:
    """The bytes of ``manifest.json`` in a folder that the command ``writer`` writes.

    Raises:
        BundleError: it is missing, not a regular file, or too large.
    """
    if (folder / MANIFEST).is_symlink():
        raise BundleError(folder, [link_fault(folder / MANIFEST)])
    try:
        return read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES)
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
        if not own_faults and card.pooling == ADDED:
            own_faults = _place_faults(name, own, manifest.graphs["score"])
        faults += own_faults
    return params, decision, faults


def _place_faults(name: str, params: Mapping[str, Array], graph: GraphCard) -> list[str]:
    """Added lengths in the parameters of a detector that are not those of the graph."""
    outputs = added_outputs(graph)
    expected = [f"{card.kind} of block {card.layer}" for card in outputs]
    places = zip(params["layers"].tolist(), params["parts"].tolist(), strict=True)
    found = [f"{ADDED_KINDS[part]} of block {layer}" for layer, part in places]
    if found == expected:
        return []
    differs = next(
        (pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), None
    )
    first = f", such as {differs[0]} where the graph has {differs[1]}" if differs else ""
    fault = (
        f"{name}: layers and parts are of {len(found)} matrices{first}; expected the "
        f"{len(expected)} of {graph.file}, in its order: calibrate again"
    )
    return [fault]
