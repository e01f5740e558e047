"""Fit a drift monitor: does a checkpoint of this base model drift into misalignment?

BASE is the base model's bundle. --runs lists checkpoints of it. Each is an exported bundle with
the share of its answers that were judged misaligned, one JSON object a line:

    {"bundle": PATH, "run": ID, "perturbation": NAME, "step": N, "misalignment": SHARE}

At least 10 different checkpoints are needed (a copy does not count), of two or more perturbations,
some with a share above --tau and some not. The publication used 468. A monitor whose alarms on
held-out perturbations are no better than chance is refused.

--traits is a YAML file of contrastive system prompts, questions and evaluation prompts; the default
is the project's own file. The command computes trait directions in the base's residual stream and
the checkpoints' drift along them. It fits three regressors (random forest, gradient boosting,
ridge) and freezes the one that best predicts held-out perturbations. A monitor is valid for its
base model only. All states come from ONNX graphs, as in later checks of checkpoints.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.calibration.defaults import PUBLISHED_TAU
from layerguard.runtime.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help="bundle of the base model")
    add(
        "--runs",
        type=Path,
        required=True,
        metavar="ROWS",
        help="JSONL of labelled checkpoints; relative bundle paths start at its folder",
    )
    add("-o", "--out", type=Path, required=True, metavar="MONITOR", help="folder to write")
    add("--traits", type=Path, metavar="YAML", help="trait file (default: the project's own)")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="TRAIT",
        help="traits to monitor, in order (default: the paper's seven if the file has all of them, "
        "else every trait of the file)",
    )
    add(
        "--layer",
        type=int,
        metavar="N",
        help="state index to read; 1 is the output of the first block (default: the one at 40 to "
        "70 %% of the depth that best separates held-out system prompts)",
    )
    add(
        "--tau",
        type=float,
        default=PUBLISHED_TAU,
        metavar="SHARE",
        help="threshold on predicted misalignment (default: 0.05, as first published)",
    )
    add(
        "--weak-traits",
        action="store_true",
        help="continue although a probe does not separate the poles of three traits in four; the "
        "drift may still predict misalignment, but the traits' names mean little",
    )
    add(
        "--step-aware",
        action="store_true",
        help="also fit the alarm for long runs; a benign run must be longer than all misaligned "
        "ones, and each check will need --step",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write a page with plots")
    options.add_session(parser)
