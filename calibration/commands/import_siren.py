"""Freeze a released SIREN or Agent-SIREN head into a bundle of its base model.

ARTEFACT is a folder with siren_config.json and siren.safetensors, as downloaded from the hub. The
head is not retrained: the scores equal llm-siren's on the same model. A SIREN head becomes the
detector siren, an Agent-SIREN head agent_siren; one bundle can hold both.

The default threshold is the artefact's, which promises no false-positive rate. With --clean, rows
of your own clean traffic calibrate the threshold for --target-fpr. A bad row is reported with its
line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from layerguard.calibration.artefacts.import_head import import_siren
from layerguard.calibration.commands.summary import removed_line
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.thresholds.conformal import DEFAULT_TARGET_FPR
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.types import Semantics


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("artefact", type=Path, metavar="ARTEFACT", help="folder of the released head")
    options.add_written_bundle(parser)
    add(
        "--clean",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="clean rows that calibrate the threshold (default: the artefact's threshold)",
    )
    add(
        "--target-fpr",
        type=float,
        default=DEFAULT_TARGET_FPR,
        metavar="SHARE",
        help="with --clean: share of clean traffic that may be flagged (default: 0.01)",
    )
    add(
        "--last-layer",
        choices=get_args(Semantics),
        help="the last block's state before (block) or after (hf) the final norm, if the head "
        "reads it (default: llm-siren's own choice: hf, and block for Agent-SIREN)",
    )
    add(
        "--other-base",
        action="store_true",
        help="accept a bundle's model of another name as the head's base model",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Import the head and print the result; return 2 if any row was bad."""
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
        print("the decision over all detectors fell away: `layerguard recalibrate` makes a new one")
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
