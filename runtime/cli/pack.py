"""Make a wheel out of a calibrated bundle, for pip to install and Guard.load to find by name.

The same bundle, name and version give the same bytes.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.cli import options
from layerguard.runtime.packing import pack


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument("--name", required=True, help="what pip and Guard.load shall call it")
    parser.add_argument("--version", required=True, help="of the package, such as 1.2.0")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)"
    )


def run(arguments: Namespace) -> int:
    """Write the wheel and say where it is."""
    wheel = pack(arguments.bundle, arguments.name, arguments.version, arguments.out)
    print(f"wrote {wheel} ({wheel.stat().st_size} bytes)")
    return 0
