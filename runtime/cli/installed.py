"""Show the installed bundles: name, version, bundle id, detectors.

Only their manifests are read: `layerguard inspect NAME` verifies the other files. The exit code is
2 if a manifest is not sound. A folder of the same name goes before an installed bundle.
"""

import hashlib
import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from layerguard.runtime.bundle.installed import Installed, installed
from layerguard.runtime.bundle.load import manifest_bytes
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.cli import options
from layerguard.runtime.cli.table import render
from layerguard.runtime.errors import BundleError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_json(parser)


def run(arguments: Namespace) -> int:
    """Print a line for each; 2 if any is not sound."""
    found = [_describe(bundle) for bundle in installed()]
    if arguments.json:
        for bundle in found:
            print(json.dumps(bundle))
    elif found:
        rows = [[*map(str, list(bundle.values())[:3]), _last(bundle)] for bundle in found]
        print(render(["name", "version", "bundle id", "detectors"], rows, text_column=3))
    else:
        print("no bundle is installed; `layerguard pack` makes a wheel out of one")
    broken = [bundle for bundle in found if bundle["fault"]]
    for bundle in broken:
        print(
            f"layerguard list: {bundle['name']} is not sound ({bundle['fault']}); run "
            f"`layerguard inspect {bundle['name']}`",
            file=sys.stderr,
        )
    return 2 if broken else 0


def _describe(bundle: Installed) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": bundle.name, "version": bundle.version, "bundle_id": "", "detectors": [],
        "folder": str(bundle.folder), "fault": None,
    }  # fmt: skip
    try:
        data = manifest_bytes(bundle.folder, "layerguard pack")
    except BundleError as error:
        return {**said, "fault": "; ".join(error.faults)}
    manifest, faults = read_manifest(data)
    if manifest is None:
        return {**said, "fault": "; ".join(faults)}
    said["bundle_id"] = hashlib.sha256(data).hexdigest()[:16]
    said["detectors"] = list(manifest.detectors)
    return said


def _last(bundle: dict[str, Any]) -> str:
    if bundle["fault"]:
        return "not sound"
    return ", ".join(bundle["detectors"])
