"""Show the installed bundles: name, version, bundle id, whether they are signed, detectors.

Only the manifests are read; `layerguard inspect NAME` verifies the other files, and `layerguard
verify NAME --key PUBLIC` the signature. The exit code is 2
if a manifest is not valid. A folder of the same name takes precedence over an installed bundle.
"""

import hashlib
import json
from argparse import ArgumentParser, Namespace
from typing import Any

from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.installed import Installed, installed
from layerguard.runtime.bundle.load import manifest_bytes
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.table import render
from layerguard.runtime.errors import BundleError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_json(parser)


def run(arguments: Namespace) -> int:
    """Print one line per bundle; 2 if one of them is not valid."""
    bundles = [_describe(bundle) for bundle in installed()]
    if arguments.json:
        for bundle in bundles:
            print(json.dumps(bundle))
    elif bundles:
        rows = [
            [*map(str, list(bundle.values())[:3]), _signed(bundle), _last(bundle)]
            for bundle in bundles
        ]
        header = ["name", "version", "bundle id", "signed", "detectors"]
        show(*render(header, rows, text_column=4).split("\n"))
    else:
        show("no bundle is installed; `layerguard pack` packs a bundle as a wheel")
    broken = [bundle for bundle in bundles if bundle["fault"]]
    faults = [
        f"{bundle['name']} is not valid ({bundle['fault']}); run `layerguard inspect "
        f"{bundle['name']}`"
        for bundle in broken
    ]
    show_faults("list", faults)
    return 2 if broken else 0


def _describe(bundle: Installed) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": bundle.name, "version": bundle.version, "bundle_id": "", "detectors": [],
        "signed": False, "folder": str(bundle.folder), "fault": bundle.fault or None,
    }  # fmt: skip
    if bundle.fault:
        return described
    try:
        data = manifest_bytes(bundle.folder, "layerguard pack")
    except BundleError as error:
        return {**described, "fault": "; ".join(error.faults)}
    manifest, faults = read_manifest(data)
    if manifest is None:
        return {**described, "fault": "; ".join(faults)}
    described["bundle_id"] = hashlib.sha256(data).hexdigest()[:16]
    described["detectors"] = list(manifest.detectors)
    described["signed"] = (bundle.folder / SIGNATURE).is_file()
    return described


def _signed(bundle: dict[str, Any]) -> str:
    return "yes" if bundle["signed"] else "no"


def _last(bundle: dict[str, Any]) -> str:
    if bundle["fault"]:
        return "not valid"
    return ", ".join(bundle["detectors"])
