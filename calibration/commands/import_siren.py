"""Freezes a released head; ``arguments/import_siren.py`` describes the command."""

from argparse import Namespace

from layerguard.calibration.artefacts.import_head import import_siren
from layerguard.calibration.commands.summary import removed_line
from layerguard.calibration.stages import FittedDetector
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults


def run(arguments: Namespace) -> int:
    """Import the head and print the result; return 2 if any row was bad."""
    options.try_graphs(arguments, [arguments.bundle])
    result = import_siren(
        arguments.artefact,
        arguments.bundle,
        clean=arguments.clean,
        target_fpr=arguments.target_fpr,
        last_layer=arguments.last_layer,
        other_base=arguments.other_base,
        device=arguments.device,
        threads=arguments.threads,
    )
    show(*_summary(result.detector))
    for note in result.notes:
        show(f"    {note}")
    if result.lost_decision:
        show("the decision over all detectors fell away: `layerguard recalibrate` makes a new one")
    for file in result.removed:
        show(removed_line(file))
    show(f"wrote {arguments.bundle} (id {result.bundle_id})")
    show_faults("import-siren", result.faults)
    return 2 if result.faults else 0


def _summary(detector: FittedDetector) -> list[str]:
    tap, budget, params = detector.tap, detector.tap.budget, detector.frozen_params
    layers = ", ".join(map(str, params["layers"].tolist()))
    read = f"{tap.pooling} of layers {layers}; last layer: {detector.settings['last_layer']}"
    most = f", {budget.keep} of {budget.max_tokens} tokens" if budget else ""
    lines = [
        f"{detector.name}: {detector.method} from {detector.settings['artefact']}",
        f"{read}{most}",
    ]
    low, high = (100 * bound for bound in params["fpr_interval"].tolist())
    if detector.rows:
        lines.append(
            f"threshold {float(params['threshold']):.4g} from "
            f"{len(params['clean_scores'])} clean prompts; target "
            f"{100 * float(params['target_fpr']):g} %, the realised share lies within "
            f"{low:.2g} and {high:.2g} % (95 %)"
        )
    else:
        lines.append(
            f"flags scores of {detector.settings['default_threshold']:g} and more, as published; "
            "no false-positive rate is promised: give --clean ROWS for one"
        )
    return [lines[0], *(f"    {line}" for line in lines[1:])]
