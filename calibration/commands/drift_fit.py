"""Fit a drift monitor: does a checkpoint of this base model drift into misalignment?

BASE is the base model's bundle. --runs lists checkpoints of it. Each is an exported bundle with
the share of its answers that were judged misaligned, one JSON object a line:

    {"bundle": PATH, "run": ID, "perturbation": NAME, "step": N, "misalignment": SHARE}

--traits is a YAML file of contrastive system prompts, questions and evaluation prompts; the default
is the project's own file. The command computes trait directions in the base's residual stream and
the checkpoints' drift along them. It fits three regressors (random forest, gradient boosting,
ridge) and freezes the one that best predicts held-out perturbations. A monitor is valid for its
base model only. All states come from ONNX graphs, as in later checks of checkpoints.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from layerguard.calibration.drift.monitor import FittedMonitor, fit_monitor
from layerguard.calibration.drift.report import CANDIDATE_HEADER, candidate_rows, html_page
from layerguard.calibration.drift.training import PUBLISHED_TAU
from layerguard.calibration.report.page import write_page
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.table import render


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


def run(arguments: Namespace) -> int:
    """Fit the monitor, write it, and print the result."""
    fitted = fit_monitor(
        arguments.base,
        arguments.runs,
        arguments.out,
        traits=arguments.traits,
        only=arguments.only,
        layer=arguments.layer,
        tau=arguments.tau,
        weak_traits=arguments.weak_traits,
        step_aware=arguments.step_aware,
        device=arguments.device,
        threads=arguments.threads,
    )
    show(*_lines(fitted))
    if arguments.html:
        write_page(arguments.html, html_page(fitted))
    show(f"wrote {arguments.out}")
    return 0


def _lines(fitted: FittedMonitor) -> Iterator[str]:
    monitor, manifest = fitted.monitor, fitted.monitor.manifest
    card = manifest.calibration
    choice = ", ".join(f"{layer}: {value:.2f}" for layer, value in card.separation.items())
    how = f"chosen by held-out separation ({choice})" if choice else "as asked"
    yield f"monitor  {monitor.id} of {manifest.base.model.id} ({manifest.base.bundle_id})"
    yield f"layer    state {manifest.layer} of {manifest.base.model.total_layers}, {how}"
    yield (
        f"traits   {', '.join(f'{t.name} {t.probe_accuracy:.2f}' for t in manifest.traits)} "
        "(probe accuracy)"
    )
    yield (
        f"runs     {card.runs} with {card.checkpoints} checkpoints, {fitted.checkpoints_above} "
        f"above tau {100 * manifest.threshold:g} %, of {len(card.perturbations)} perturbations"
    )
    yield ""
    yield from render(CANDIDATE_HEADER, candidate_rows(fitted)).split("\n")
    yield ""
    if manifest.step_aware:
        yield "alarm    step-aware: each check needs --step"
