"""Set the thresholds of a bundle again on recent traffic; no other parameter changes.

--shadow rows are recent traffic that is assumed to be clean. The bundle's detectors score them, and
all thresholds are set on these scores, for all traffic and for each domain. Rows of label 1 and
texts that the detectors were fitted on are left out and counted. Give unfiltered traffic: without
the rows that the guard flagged, it would flag the same share of the remaining ones.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.calibration.commands.summary import decision_lines, removed_line
from layerguard.calibration.guard.recalibrate import recalibrate
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults


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


def run(arguments: Namespace) -> int:
    """Recalibrate and print the new thresholds; return 2 if any row was bad."""
    result = recalibrate(
        arguments.bundle,
        arguments.shadow,
        target_fpr=arguments.target_fpr,
        device=arguments.device,
        threads=arguments.threads,
        notify=show,
    )
    for name, (before, after) in result.thresholds.items():
        print(f"{name}: threshold {before:.4g} -> {after:.4g}")
    for line in (
        *decision_lines(result.decision, result.clean_texts),
        *map(removed_line, result.removed),
    ):
        show(line)
    if result.lost_domains:
        lost = ", ".join(result.lost_domains)
        show(f"    thresholds of {lost} fell away: too few rows of that domain")
    show(f"wrote {arguments.bundle} (id {result.bundle_id})")
    show_faults("recalibrate", result.faults)
    return 2 if result.faults else 0
