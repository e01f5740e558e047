"""Freeze a released SIREN or Agent-SIREN head into a bundle of its base model.

ARTEFACT is a folder with siren_config.json and siren.safetensors, as downloaded from the hub. The
head is not retrained: the scores equal llm-siren's on the same model. A SIREN head becomes the
detector siren, an Agent-SIREN head agent_siren; one bundle can hold both.

The default threshold is the artefact's, which promises no false-positive rate. With --clean, rows
of your own clean traffic calibrate the threshold for --target-fpr. A bad row is reported with its
line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import get_args

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.runtime.cli import options
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
