"""Pack a calibrated bundle as a wheel, which pip installs and Guard.load finds by name.

The same bundle, name and version give the same bytes.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.packing import pack


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument("--name", required=True, help="name of the package for pip and Guard.load")
    parser.add_argument("--version", required=True, help="version of the package, such as 1.2.0")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder of the wheel (default: the current folder)",
    )


def run(arguments: Namespace) -> int:
    """Write the wheel and print its path."""
    wheel = pack(arguments.bundle, arguments.name, arguments.version, arguments.out)
    show(f"wrote {wheel} ({wheel.stat().st_size} bytes)")
    return 0
