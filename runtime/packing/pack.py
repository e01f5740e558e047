"""Packs a verified bundle as a data-only wheel with an entry point that names its folder."""

import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution, requires
from importlib.metadata import version as version_of
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import MANIFEST, SIGNATURE
from layerguard.runtime.bundle.installed import GROUP, NAME, find_bundle
from layerguard.runtime.bundle.load import read_bundle
from layerguard.runtime.bundle.signing import signature_bytes
from layerguard.runtime.bundle.steady import steadily
from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.packing.wheel import Wheel

PARENT = "layerguard_bundles"
"""Parent folder of all packed bundles, so that a bundle's name cannot shadow another module."""


def pack(folder: Path, name: str, version: str, out: Path) -> Path:
    """Write the bundle in ``folder`` to ``out`` as ``NAME-VERSION-py3-none-any.whl``.

    The same bundle, name, version and release of LayerGuard give the same bytes. The wheel requires
    LayerGuard of this release or a later one. It does not require an extra, because the machine
    decides between ``layerguard[cpu]`` and ``layerguard[cuda]``.

    Returns:
        The path of the wheel.

    Raises:
        BundleError: the bundle has faults or is not calibrated.
        InputError: pip does not accept the name or the version, or ``out`` is not a folder or is
            the bundle itself.
        MachineError: the disk is full or fails.
    """
    project = _Project(name, version)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; expected an existing one: create it first")
    folder = find_bundle(folder)
    if out.resolve() == folder.resolve():
        raise InputError(
            f"{out} is the bundle itself, which may hold no other file; name another folder"
        )
    wheel = out / f"{project.stem}-py3-none-any.whl"
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".packing-") as beside:
            file = Path(beside) / wheel.name
            steadily(folder, lambda place: _write(place, folder, project, file))
            file.replace(wheel)
    except OSError as error:
        raise MachineError(
            f"{wheel} could not be written ({error.strerror}); free space on that disk, or allow "
            "writing there, and run the command again"
        ) from error
    return wheel


class _Project:
    """A project's name and version in pip's normal form."""

    def __init__(self, name: str, version: str) -> None:
        faults = []
        self.name = canonicalize_name(name)
        owner = _taken(self.name) if NAME.fullmatch(name) else ""
        if owner:
            faults.append(f"--name: found {self.name}, {owner}; expected a name of your own")
        if not NAME.fullmatch(name):
            faults.append(
                f"--name: found {name!r}; expected letters, digits, '-', '_' and '.', at most 128, "
                "the first and last a letter or digit"
            )
        try:
            self.version = str(Version(version))
        except InvalidVersion:
            faults.append(f"--version: found {version!r}; expected one such as 1.2.0 (PEP 440)")
        if faults:
            raise InputError("; ".join(faults))
        self.module = self.name.replace("-", "_")
        self.stem = f"{self.module}-{self.version}"


def _taken(name: str) -> str:
    """What a name in pip's normal form belongs to; empty if a bundle may have it.

    Installing a wheel of that name would replace the package, or the name would be mistaken for it.
    """
    if name == "layerguard":
        return "which is the package itself"
    if name in _INSTALLERS or name.replace("-", "_") in sys.stdlib_module_names:
        return "which is part of Python or of its installers"
    if any(
        name == canonicalize_name(Requirement(one).name) for one in requires("layerguard") or ()
    ):
        return "which layerguard depends on"
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return ""
    if any(entry.group == GROUP for entry in package.entry_points):
        return ""
    return "which is installed here and is not a bundle"


_INSTALLERS = frozenset({
    "build", "conda", "hatch", "hatchling", "pdm", "pip", "pipx", "poetry", "setuptools", "uv",
    "virtualenv", "wheel",
})  # fmt: skip


def _write(place: Path, folder: Path, project: _Project, file: Path) -> None:
    bundle = read_bundle(place, folder)
    if not bundle.manifest.detectors:
        fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
        raise BundleError(folder, [fault])
    with Wheel(file, project.stem) as wheel:
        for name in sorted([*bundle.manifest.files, MANIFEST]):
            _add(wheel, f"{PARENT}/{project.module}", bundle, place / name)
        if os.path.lexists(place / SIGNATURE):  # not verified here, which would need the key
            signature_bytes(place)
            wheel.add_file(f"{PARENT}/{project.module}/{SIGNATURE}", place / SIGNATURE)
        wheel.add_info("METADATA", _metadata(project, bundle))
        wheel.add_info("WHEEL", _WHEEL.format(generator=version_of("layerguard")))
        points = f"[{GROUP}]\n{project.name} = {PARENT}.{project.module}\n"
        wheel.add_info("entry_points.txt", points)


def _add(wheel: Wheel, prefix: str, bundle: Bundle, file: Path) -> None:
    """Add one file of the bundle, and check that it is still the verified one."""
    try:
        digest = wheel.add_file(f"{prefix}/{file.name}", file)
    except FileNotFoundError:
        digest = ""
    card = bundle.manifest.files.get(file.name)
    is_unchanged = digest == card.sha256 if card else digest.startswith(bundle.id)
    if not is_unchanged:
        fault = (
            f"{file.name} changed while it was packed; pack again when nothing writes the bundle"
        )
        raise BundleError(bundle.path, [fault])


def _metadata(project: _Project, bundle: Bundle) -> str:
    """METADATA as in PEP 566. The model's name is untrusted: only printable characters are kept."""
    model = "".join(c for c in bundle.manifest.model.id if c.isprintable())[:100]
    detectors = ", ".join(bundle.manifest.detectors)
    return _METADATA.format(
        name=project.name,
        version=project.version,
        summary=f"LayerGuard bundle {bundle.id}: {model} with {detectors}",
        layerguard=version_of("layerguard"),
    )


_METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: {version}
Summary: {summary}
Requires-Python: >=3.11
Requires-Dist: layerguard>={layerguard}
Description-Content-Type: text/markdown

{summary}.

    from layerguard.runtime import Guard

    guard = Guard.load("{name}")
"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: layerguard {generator}
Root-Is-Purelib: true
Tag: py3-none-any
"""
