"""The files of a bundle: their names, their hashes, and every way in which they can be wrong."""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from layerguard.runtime.bundle.manifest import FileCard

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # where model_signing looks for it; it is signed by nobody, so never listed
GRAPH = "score.onnx"
FUSED = "fused.onnx"
WEIGHTS = "weights.data"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
DETECTORS = "detectors.npz"
STAGED, READY, MOVING = ".layerguard.writing", ".layerguard.ready", ".layerguard.moving"
UNLISTED = frozenset({STAGED, READY, MOVING, "lost+found"})
"""What may lie in a bundle's folder and is no part of it: a writer's, and a file system's own."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def card_of(path: Path) -> FileCard:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileCard(bytes=path.stat().st_size, sha256=digest)


def file_faults(
    folder: Path, files: Mapping[str, FileCard], may_hold: Collection[str] = ()
) -> list[str]:
    """Every file that is missing, altered, truncated, oversized, misnamed or not listed.

    The folder ``may_hold`` some that no manifest lists.
    """
    faults = []
    for name, expected in sorted(files.items()):
        if not _PLAIN_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE):
            faults.append(f"manifest.json lists {name[:80]!r}; expected plain names of files")
            continue
        faults += _one(folder / name, expected)
    try:
        unlisted = {path.name for path in folder.iterdir()} - files.keys()
        unlisted -= {MANIFEST, *may_hold, *UNLISTED}
    except OSError as error:
        return [*faults, f"the folder cannot be listed ({error.strerror}); check its permissions"]
    faults += [f"{name!r} is not in the manifest; remove it" for name in sorted(unlisted)]
    return faults


def changed(folder: Path, files: Mapping[str, FileCard]) -> list[str]:
    """Of these files, every one that is no longer as the manifest has it."""
    return [
        fault for name, expected in sorted(files.items()) for fault in _one(folder / name, expected)
    ]


def _one(path: Path, expected: FileCard) -> list[str]:
    try:
        if not path.is_file():
            found = "not a file" if path.exists() else "missing"
            return [f"{path.name} is {found}; copy the whole bundle again"]
        size = path.stat().st_size
        if size != expected.bytes:  # before hashing: an oversized file is not read
            what = f"{size} bytes; the manifest says {expected.bytes}"
            return [f"{path.name} has {what}: copy the bundle again"]
        found = card_of(path).sha256
    except OSError as error:
        return [f"{path.name} cannot be read ({error.strerror}); check its permissions"]
    if found != expected.sha256:
        what = f"sha256 {found[:16]}...; the manifest says {expected.sha256[:16]}..."
        return [f"{path.name} has {what}: it was altered, copy the bundle again"]
    return []
