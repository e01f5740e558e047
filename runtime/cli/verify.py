"""Verify a bundle's signature with a public key, offline, and then the bundle itself."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.signing import load_verified
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument(
        "--key", type=Path, required=True, metavar="PUBLIC", help="public key, in PEM"
    )


def run(arguments: Namespace) -> int:
    """Print the verified bundle; 2 with the reason if verification fails."""
    bundle = load_verified(find_bundle(arguments.bundle), arguments.key)
    files = len(bundle.manifest.files) + 1
    show(f"bundle {bundle.id}: {files} files, signed with the key of {arguments.key}")
    return 0
