"""Fits a drift monitor; ``arguments/drift_fit.py`` describes the command."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from layerguard.calibration.drift.monitor import FittedMonitor, fit_monitor
from layerguard.calibration.drift.report import CANDIDATE_HEADER, candidate_rows, html_page
from layerguard.calibration.drift.runs import read_runs
from layerguard.calibration.report.page import write_page
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.table import render


def run(arguments: Namespace) -> int:
    """Fit the monitor, write it, and print the result."""
    options.try_graphs(arguments, _bundles(arguments))
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


def _bundles(arguments: Namespace) -> Iterator[Path]:
    """The base model's bundle, and those of the runs."""
    yield arguments.base
    yield from (Path(checkpoint.bundle) for checkpoint in read_runs(arguments.runs))


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
