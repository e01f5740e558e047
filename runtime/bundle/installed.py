"""Finds bundles that are installed as packages, by name, without running code of the package.

A package provides a bundle with an entry point in the group ``layerguard.bundles``. The entry
point's name is the bundle's name. Its value is the bundle's folder as a dotted path, relative to
the folder in which the package is installed.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerguard.runtime.bundle.files import MANIFEST
from layerguard.runtime.errors import BundleError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "layerguard.bundles"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Installed:
    """One installed bundle: its name, the version of its package, its folder.

    ``fault`` says why the package may not provide it; empty if it may.
    """

    name: str
    version: str
    folder: Path
    fault: str = ""


def installed() -> list[Installed]:
    """All installed bundles, sorted by name. They are not verified."""
    from importlib.metadata import entry_points  # noqa: PLC0415  20 ms, needed for names only

    bundles = []
    for entry in entry_points(group=GROUP):
        if entry.dist is not None:
            folder = Path(str(entry.dist.locate_file(entry.value.replace(".", "/"))))
            fault = _claim_fault(entry.dist, entry)
            bundles.append(Installed(_canonical(entry.name), entry.dist.version, folder, fault))
    return sorted(bundles)


def _claim_fault(package: "Distribution", entry: "EntryPoint") -> str:
    """Why a package may not provide the bundle that its entry point names; empty if it may.

    A package provides one bundle, which has the package's name and lies in the package's own files:
    otherwise any installed package could take the place of another one's bundle.
    """
    name = _canonical(package.name)
    if _canonical(entry.name) != name:
        return f"package {name!r} provides a bundle of another name; uninstall that package"
    own = {str(file.parent) for file in package.files or () if file.name == MANIFEST}
    if entry.value.replace(".", "/") not in own:
        return f"package {name!r} names a folder that is not its own; uninstall that package"
    return ""


def find_bundle(path: str | Path) -> Path:
    """The bundle's folder: ``path`` if it exists, else the installed bundle of that name.

    A folder takes precedence, so that a listing of the working directory shows which bundle is
    used. Names are compared as pip compares them: ``Acme_Guard`` equals ``acme-guard``.

    Raises:
        BundleError: ``path`` is a plain name, there is no such folder, and no installed package
            provides a bundle of that name, or only one that may not.
    """
    name = str(path)
    if os.path.lexists(path) or not NAME.fullmatch(name):
        return Path(path)  # if nothing exists there, loading reports it
    bundles = installed()
    matching = [bundle for bundle in bundles if bundle.name == _canonical(name)]
    for bundle in matching:
        if not bundle.fault:  # a package has its name for itself, so there is only one
            return bundle.folder
    if matching:
        raise BundleError(name, [bundle.fault for bundle in matching])
    others = ", ".join(sorted({bundle.name for bundle in bundles})) or "none"
    fault = (
        f"found neither a folder {name!r} in {Path.cwd()} nor an installed bundle of that name "
        f"(installed: {others}); give the folder that `layerguard export` wrote, or pip install "
        "the wheel that `layerguard pack` made of it"
    )
    raise BundleError(name, [fault])


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name  # noqa: PLC0415  11 ms, needed for names only

    return canonicalize_name(name)
