"""The files of a bundle: their names, their hashes, and their verification."""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from layerguard.runtime.bundle.manifest import FileCard
from layerguard.runtime.regular_files import open_regular

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"  # model_signing's name; the file cannot sign itself, so it is never listed
GRAPH = "score.onnx"
FUSED = "fused.onnx"
WEIGHTS = "weights.data"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
DETECTORS = "detectors.npz"
STAGED, READY, MOVING = ".layerguard.writing", ".layerguard.ready", ".layerguard.moving"
UNLISTED = frozenset({STAGED, READY, MOVING, "lost+found"})
"""Entries of a bundle's folder that are not part of the bundle: those of a writer, and ext4's."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def card_of(path: Path) -> FileCard:
    """Size and sha256 of a file."""
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileCard(bytes=file.tell(), sha256=digest)


def file_faults(
    folder: Path, files: Mapping[str, FileCard], may_hold: Collection[str] = ()
) -> list[str]:
    """All faults: files that are missing, altered, truncated, oversized, misnamed or not listed.

    Args:
        folder: the bundle's folder.
        files: cards of the listed files, by name.
        may_hold: names of files that may be present without being listed.
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


def altered(folder: Path, files: Mapping[str, FileCard]) -> list[str]:
    """The faults of listed files that do not match their cards."""
    return [
        fault for name, expected in sorted(files.items()) for fault in _one(folder / name, expected)
    ]


def link_fault(path: Path) -> str:
    """The fault of a file that is a link."""
    where = str(path.readlink())[:80]
    return f"{path.name} is a link to {where!r}; copy the file itself into the folder (cp -L)"


def _one(path: Path, expected: FileCard) -> list[str]:
    try:
        if path.is_symlink():
            return [link_fault(path)]
        if not path.is_file():
            problem = "not a file" if path.exists() else "missing"
            return [f"{path.name} is {problem}; copy the whole bundle again"]
        size = path.stat().st_size
        if size != expected.bytes:  # checked before hashing, so an oversized file is not read
            what = f"{size} bytes; the manifest says {expected.bytes}"
            return [f"{path.name} has {what}: copy the bundle again"]
        digest = card_of(path).sha256
    except OSError as error:
        return [f"{path.name} cannot be read ({error.strerror}); check its permissions"]
    if digest != expected.sha256:
        what = f"sha256 {digest[:16]}...; the manifest says {expected.sha256[:16]}..."
        return [f"{path.name} has {what}: it was altered, copy the bundle again"]
    return []
