"""Prints flags to link C code: ``cc app.c $(python -m layerguard.runtime --cflags --libs)``."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from layerguard.runtime.errors import MachineError
from layerguard.runtime.linking import compile_flags, folder, link_flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the requested flags; 2 if none was requested, 3 if the library is not installed."""
    parser = argparse.ArgumentParser(prog="python -m layerguard.runtime", description=__doc__)
    parser.add_argument("--cflags", action="store_true", help="compiler flags for the header")
    parser.add_argument("--libs", action="store_true", help="linker flags for the library")
    parser.add_argument("--static", action="store_true", help="link the static library instead")
    parser.add_argument("--prefix", action="store_true", help="folder of header and libraries")
    options = parser.parse_args(arguments)
    if not (options.cflags or options.libs or options.prefix):
        parser.print_usage(sys.stderr)
        return 2
    try:
        flags = [str(folder())] if options.prefix else []
        flags += compile_flags() if options.cflags else []
        flags += link_flags(static=options.static) if options.libs else []
    except MachineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 3
    print(shlex.join(flags))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
