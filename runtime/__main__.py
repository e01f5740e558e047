"""How a C program links: ``cc app.c $(python -m layerguard.runtime --cflags --libs)``."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from layerguard.runtime.errors import MachineError
from layerguard.runtime.linking import compile_flags, folder, link_flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was asked for; 2 where nothing was, 3 where the library is not installed."""
    parser = argparse.ArgumentParser(prog="python -m layerguard.runtime", description=__doc__)
    parser.add_argument("--cflags", action="store_true", help="where the header lies")
    parser.add_argument("--libs", action="store_true", help="the library, and where it lies")
    parser.add_argument("--static", action="store_true", help="the static library instead")
    parser.add_argument("--prefix", action="store_true", help="the folder of both")
    asked = parser.parse_args(arguments)
    if not (asked.cflags or asked.libs or asked.prefix):
        parser.print_usage(sys.stderr)
        return 2
    try:
        flags = [str(folder())] if asked.prefix else []
        flags += compile_flags() if asked.cflags else []
        flags += link_flags(static=asked.static) if asked.libs else []
    except MachineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 3
    print(shlex.join(flags))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
