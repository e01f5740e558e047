"""Bundles that were installed as packages, found by name; no code of such a package is run.

A package brings a bundle with an entry point in the group ``layerguard.bundles``: its name is the
bundle's name, its value the bundle's folder as a dotted path from where the package is installed.
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
    """Every installed bundle, by name; none of them verified."""
    from importlib.metadata import entry_points  # noqa: PLC0415  20 ms, for who asks by name

    found = []
    for entry in entry_points(group=GROUP):
        if entry.dist is not None:
            folder = Path(str(entry.dist.locate_file(entry.value.replace(".", "/"))))
            found.append(Installed(_normal(entry.name), entry.dist.version, folder))
    return sorted(found)


def find_bundle(path: str | Path) -> Path:
    """The bundle's folder: ``path`` where that exists, else the installed bundle of that name.

    A folder always wins, so that what stands in the working directory can be told from a listing
    of it. Names are compared as pip compares them: ``Acme_Guard`` is ``acme-guard``.

    Raises:
        BundleError: ``path`` is a plain name, and neither a folder nor one installed bundle has it.
    """
    name = str(path)
    if os.path.lexists(path) or not NAME.fullmatch(name):
        return Path(path)  # where nothing is there, loading says so
    everything = installed()
    found = [bundle for bundle in everything if bundle.name == _normal(name)]
    if len(found) == 1:
        return found[0].folder
    if found:
        folders = " and ".join(str(bundle.folder) for bundle in found)
        fault = f"several packages bring it, in {folders}; pip uninstall all but one"
        raise BundleError(name, [fault])
    others = ", ".join(sorted({bundle.name for bundle in everything})) or "none"
    fault = (
        f"found neither a folder {name!r} in {Path.cwd()} nor an installed bundle of that name "
        f"(installed: {others}); give the folder that `layerguard export` wrote, or pip install "
        "the wheel that `layerguard pack` made of it"
    )
    raise BundleError(name, [fault])


def _normal(name: str) -> str:
    """As in the specification of names: https://packaging.python.org, "Name normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()
