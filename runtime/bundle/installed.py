"""Finds bundles that are installed as packages, by name, without running code of the package.

A package provides a bundle with an entry point in the group ``layerguard.bundles``. The entry
point's name is the bundle's name. Its value is the bundle's folder as a dotted path, relative to
the folder in which the package is installed.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from layerguard.runtime.errors import BundleError

GROUP = "layerguard.bundles"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Installed:
    """One installed bundle: its name, the version of its package, its folder."""

    name: str
    version: str
    folder: Path


def installed() -> list[Installed]:
    """All installed bundles, sorted by name. They are not verified."""
    from importlib.metadata import entry_points  # noqa: PLC0415  20 ms, needed for names only

    bundles = []
    for entry in entry_points(group=GROUP):
        if entry.dist is not None:
            folder = Path(str(entry.dist.locate_file(entry.value.replace(".", "/"))))
            bundles.append(Installed(_canonical(entry.name), entry.dist.version, folder))
    return sorted(bundles)


def find_bundle(path: str | Path) -> Path:
    """The bundle's folder: ``path`` if it exists, else the installed bundle of that name.

    A folder takes precedence, so that a listing of the working directory shows which bundle is
    used. Names are compared as pip compares them: ``Acme_Guard`` equals ``acme-guard``.

    Raises:
        BundleError: ``path`` is a plain name, and there is no such folder and not exactly one
            installed bundle of that name.
    """
    name = str(path)
    if os.path.lexists(path) or not NAME.fullmatch(name):
        return Path(path)  # if nothing exists there, loading reports it
    bundles = installed()
    matching = [bundle for bundle in bundles if bundle.name == _canonical(name)]
    if len(matching) == 1:
        return matching[0].folder
    if matching:
        folders = " and ".join(str(bundle.folder) for bundle in matching)
        fault = f"several packages provide it, in {folders}; pip uninstall all but one"
        raise BundleError(name, [fault])
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
