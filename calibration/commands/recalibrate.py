"""Sets thresholds again; ``arguments/recalibrate.py`` describes the command."""

from argparse import Namespace

from layerguard.calibration.commands.summary import decision_lines, removed_line
from layerguard.calibration.guard.recalibrate import recalibrate
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults


def run(arguments: Namespace) -> int:
    """Recalibrate and print the new thresholds; return 2 if any row was bad."""
    options.try_guard(arguments, [arguments.bundle])
    result = recalibrate(
        arguments.bundle,
        arguments.shadow,
        target_fpr=arguments.target_fpr,
        device=arguments.device,
        threads=arguments.threads,
        notify=show,
    )
    for name, (before, after) in result.thresholds.items():
        show(f"{name}: threshold {before:.4g} -> {after:.4g}")
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
