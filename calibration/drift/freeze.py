"""Write a fitted monitor into a folder, atomically and reproducibly."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from layerguard.runtime.bundle.files import DETECTORS, MANIFEST, card_of
from layerguard.runtime.bundle.load import manifest_bytes
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.write import replacing
from layerguard.runtime.drift.manifest import (
    WRITER,
    MonitorManifest,
    read_monitor_manifest,
)
from layerguard.runtime.drift.parameters import PREFIX, monitor_faults
from layerguard.runtime.errors import BundleError, CalibrationError, InputError
from layerguard.runtime.model.session import load_onnxruntime
from layerguard.runtime.types import Array

_LIBRARIES = ("layerguard", "numpy", "scikit-learn", "scipy", "tokenizers")


def refuse_other_folder(path: Path) -> None:
    """Refuse to replace a folder that is not a monitor; called before the work begins.

    Raises:
        InputError: ``path`` has a manifest of another kind, such as a bundle's.
    """
    if not (path / MANIFEST).exists():
        return
    try:
        manifest, _ = read_monitor_manifest(manifest_bytes(path, WRITER))
    except BundleError:
        manifest = None
    if manifest is None:
        raise InputError(f"{path} exists and is not a drift monitor; name a new folder")


def write_monitor(path: Path, manifest: MonitorManifest, params: Mapping[str, Array]) -> None:
    """Write the folder; this function sets ``files`` and ``versions`` of the manifest.

    Raises:
        CalibrationError: the monitor would not load; lists every fault.
        InputError: ``path`` is not a monitor, or another process is writing it.
    """
    refuse_other_folder(path)
    versions = {
        **{name: version(name) for name in _LIBRARIES},
        "onnxruntime": load_onnxruntime().__version__,  # its package has one of several names
    }
    manifest = replace(manifest, versions=versions)
    _, faults = read_monitor_manifest(manifest.to_bytes())
    faults += monitor_faults(manifest, params)
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise CalibrationError(f"the fitted monitor cannot be used:{listed}")
    with replacing(path) as folder:
        arrays = {f"{PREFIX}/{name}": array for name, array in params.items()}
        write_npz(folder / DETECTORS, arrays)
        sealed = replace(manifest, files={DETECTORS: card_of(folder / DETECTORS)})
        (folder / MANIFEST).write_bytes(sealed.to_bytes())
