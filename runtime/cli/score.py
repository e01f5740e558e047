"""Score texts with a calibrated bundle.

Give one TEXT, or rows of JSONL with --input, or text on standard input. TEXT and ROWS may also be
-, which reads standard input in UTF-8; a newline at its end is not part of the text. A bad row is
reported with its line; the other rows are still scored, and the exit code is then 2.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.table import verdict_lines
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.check_rows import check_rows
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.text.request import request


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text to score, or -")
    parser.add_argument("--input", type=Path, metavar="ROWS", help="a JSONL file of rows, or -")
    parser.add_argument(
        "--domain", help="domain of TEXT; rows have their own (default: all traffic)"
    )
    options.add_json(parser)
    options.add_session(parser)
    options.add_weights(parser)
    options.add_verify(parser)


def run(arguments: Namespace) -> int:
    """Print a verdict for every text; 1 if any is flagged, 2 if any row was bad."""
    rows, bad_rows = _rows(arguments)
    faults = list(bad_rows)
    guard = options.load_guard(arguments)
    flagged = False
    progress = arguments.input is not None
    for row, verdict in check_rows(guard, rows, faults, "scoring", show_progress=progress):
        flagged |= verdict.flagged
        if arguments.json:
            print(json.dumps({"id": row.id, **verdict.to_json()}, allow_nan=False), flush=True)
        else:
            show(*verdict_lines(row.id, verdict))
    show_faults("score", faults)
    return 2 if faults else int(flagged)


def _rows(arguments: Namespace) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    if arguments.text is not None and arguments.input is not None:
        raise InputError("found both TEXT and --input; expected only one of them")
    if arguments.input is not None and arguments.domain is not None:
        raise InputError('found both --input and --domain; expected a "domain" in each row')
    if arguments.input is not None:
        rows = read_rows([arguments.input])
        return rows.good, rows.faults
    if arguments.text is None and sys.stdin is not None and sys.stdin.isatty():
        raise InputError("found no TEXT and no --input; expected one, or text on standard input")
    text = options.given_text("-" if arguments.text is None else arguments.text)
    if arguments.text is not None and os.path.isfile(arguments.text):  # noqa: PTH113  any text
        told = "TEXT is the name of a file, and the name is scored; --input scores a file's rows"
        show(f"layerguard score: {told}", to=sys.stderr)
    row = Row(id="text", request=request(text), place="text", domain=arguments.domain)
    return (row,), ()
