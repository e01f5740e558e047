"""A bundle that all nodes of a cluster have."""

from pathlib import Path

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import BundleError


def same_bundle(folder: Path, bundle_id: str) -> Bundle:
    """The bundle in a folder of this node.

    Raises:
        BundleError: it has another id.
    """
    bundle = Bundle.load(folder)
    if bundle.id != bundle_id:
        fault = (
            f"this node has bundle {bundle.id}; expected {bundle_id}, which the caller has: give "
            "all nodes the same folder"
        )
        raise BundleError(folder, [fault])
    return bundle
