"""Set the thresholds of a bundle again on recent traffic; no other parameter changes.

--shadow rows are recent traffic that is assumed to be clean. The bundle's detectors score them, and
all thresholds are set on these scores, for all traffic and for each domain. Rows of label 1 and
texts that the detectors were fitted on are left out and counted. Give unfiltered traffic: without
the rows that the guard flagged, it would flag the same share of the remaining ones.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.runtime.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    add = parser.add_argument
    add(
        "--shadow",
        type=Path,
        nargs="+",
        required=True,
        metavar="ROWS",
        help="recent traffic, assumed to be clean",
    )
    add(
        "--target-fpr",
        type=float,
        metavar="SHARE",
        help="share of traffic that the whole guard may flag (default: the bundle's own target)",
    )
    options.add_session(parser)
