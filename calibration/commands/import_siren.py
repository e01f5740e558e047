"""Freeze a released SIREN or Agent-SIREN head into a bundle of its base model.

ARTEFACT is a folder with siren_config.json and siren.safetensors, as the hub gives it. Nothing is
retrained: the scores are llm-siren's on the same model. A SIREN head becomes the detector siren, an
Agent-SIREN head agent_siren; one bundle can hold both.

The threshold is the artefact's, which promises no false-positive rate. With --clean, rows of your
own clean traffic, it is calibrated for --target-fpr instead. A bad row is reported with its line;
the others are used, and the exit code is then 2.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from layerguard.calibration import conformal
from layerguard.calibration.artefacts import artefact, bundle_fit
from layerguard.calibration.collect import record
from layerguard.calibration.commands.summary import dropped_lines
from layerguard.calibration.freeze import Calibrated, freeze
from layerguard.calibration.labelled import read_clean
from layerguard.calibration.leakage import prompt_group
from layerguard.calibration.recording import Recording
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.model.backbone import Backbone
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
        help="clean rows to calibrate the threshold on (default: the artefact's threshold)",
    )
    add(
        "--target-fpr",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="with --clean: share of clean traffic that may be flagged (default: 0.01)",
    )
    add(
        "--last-layer",
        choices=get_args(Semantics),
        help="the last block's state before (block) or after (hf) the final norm, if the head "
        "reads it (default: as llm-siren serves it: hf, and block for Agent-SIREN)",
    )
    add(
        "--other-base",
        action="store_true",
        help="the bundle's model is the head's base model, though it has another name",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Check, freeze and say what was found; 2 if any row was bad."""
    head = artefact.read(arguments.artefact)
    bundle = Bundle.load(arguments.bundle)
    bundle_fit.check(head, bundle.manifest, other_base=arguments.other_base)
    item = bundle_fit.as_published(
        head,
        arguments.artefact.resolve().name,
        bundle_fit.tap_in(head, bundle.manifest, arguments.last_layer),
        last_layer_read=bundle_fit.reads_last_layer(head, bundle.manifest),
    )
    backbone = Backbone(bundle, arguments.device, arguments.threads)
    faults: tuple[str, ...] = ()
    if arguments.clean:
        clean = read_clean(arguments.clean)
        conformal.rank(len({prompt_group(row) for row in clean.rows}), arguments.target_fpr)
        with Recording(len(clean.rows)) as recording:
            found = record(backbone, clean.rows, item.tap, "clean rows", recording)
            item = bundle_fit.recalibrated(item, found, arguments.target_fpr)
        faults = (*clean.faults, *found.faults)
    dropped = dropped_lines(bundle)
    freeze(bundle, backbone, [item])
    print(_summary(item))
    for note in bundle_fit.notes(head, bundle.manifest):
        print(f"    {note}")
    if bundle.manifest.decision:
        print("the decision over all detectors fell away: `layerguard recalibrate` makes a new one")
    for line in dropped:
        print(line)
    print(f"wrote {arguments.bundle} (id {Bundle.load(arguments.bundle).id})")
    for fault in faults:
        print(f"layerguard import-siren: {fault}", file=sys.stderr)
    return 2 if faults else 0


def _summary(item: Calibrated) -> str:
    tap, limit = item.tap, item.tap.limit
    layers = ", ".join(map(str, item.params["layers"].tolist()))
    read = f"{tap.pooling} of layers {layers}; last layer: {item.settings['last_layer']}"
    most = f", {limit.keep} of {limit.max_tokens} tokens" if limit else ""
    lines = [f"{item.name}: {item.method} from {item.settings['artefact']}", f"{read}{most}"]
    low, high = (100 * bound for bound in item.params["fpr_interval"].tolist())
    if item.rows:
        lines.append(
            f"threshold {float(item.params['threshold']):.4g} from "
            f"{len(item.params['clean_scores'])} clean prompts; target "
            f"{100 * float(item.params['target_fpr']):g} %, the realised share lies within "
            f"{low:.2g} and {high:.2g} % (95 %)"
        )
    else:
        lines.append(
            f"flags scores of {item.settings['default_threshold']:g} and more, as published; no "
            "false-positive rate is promised: give --clean ROWS for one"
        )
    return "\n    ".join(lines)
