"""Check that no line of an audit log was changed, added or left out.

The server must have written it with audit_chain = "on". The first line may continue another file.
Compare the number of lines and the last chain with what you know: lines that are missing at the end
cannot be seen.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.cli.streams import show
from layerguard.runtime.errors import InputError
from layerguard.runtime.server.audit import read_key, verify

_MOST_SHOWN = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=["verify"], help="what to do")
    parser.add_argument("log", type=Path, metavar="FILE", help="the audit log")
    parser.add_argument("--key-file", required=True, metavar="KEY", help="the file with its key")


def run(arguments: Namespace) -> int:
    """Print how many lines were verified, and the last chain."""
    lines, last, faults = verify(arguments.log, read_key(arguments.key_file))
    if faults:
        shown = "".join(f"\n  - {fault}" for fault in faults[:_MOST_SHOWN])
        raise InputError(
            f"{arguments.log}: faults found: {len(faults)}, in {lines} lines; expected none:{shown}"
        )
    show(f"{lines} lines verified; the last chain is {last or 'empty'}")
    return 0
