"""Measure a calibrated bundle on labelled rows, file by file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration.evaluation.domains import Cell, matrix
from layerguard.calibration.evaluation.methods import (
    Measured,
    detector_methods,
    fit_baselines,
    measure,
)
from layerguard.calibration.evaluation.results import FileResult
from layerguard.calibration.evaluation.rule import GuardRule, guard_rule
from layerguard.calibration.evaluation.scored_rows import ScoredRow, scores_of
from layerguard.calibration.notify import Notify, silent
from layerguard.calibration.rows.labelled import read_labelled
from layerguard.calibration.rows.sources import RowSources, listed
from layerguard.calibration.states.passes import Pass, read_once
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Device
from layerguard.runtime.rows.jsonl import Row

_NAME = "rows"
"""Name of the rows that are given without a file."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of a bundle.

    Attributes:
        bundle_id: id of the bundle.
        guard: what the bundle promises and how it decides.
        files: the metrics of every method on each file, in the order of the files.
        domains: the share of each domain's clean rows that the thresholds of every domain flag,
            over all files; empty if neither bundle nor rows have more than one domain.
        rows: every measured row with its scores, over all files.
        faults: one message for each row that was not used.
    """

    bundle_id: str
    guard: GuardRule
    files: tuple[FileResult, ...]
    domains: tuple[Cell, ...]
    rows: tuple[ScoredRow, ...]
    faults: tuple[str, ...]


def evaluate(
    bundle: str | Path,
    rows: RowSources,
    *,
    train: RowSources = (),
    seed: int = 0,
    device: Device = "cpu",
    threads: int = 0,
    notify: Notify = silent,
    on_file: Callable[[FileResult], object] = silent,
    read: Pass = read_once,
) -> Evaluation:
    """Score the rows and compare the scores with the labels.

    Args:
        bundle: folder of a calibrated bundle, or name of an installed one.
        rows: files of labelled rows, each measured separately; or rows, measured together.
        train: files or rows to fit two baselines on: TF-IDF with logistic regression, and the best
            probe of a single layer. Rows whose text ``rows`` contains are left out.
        seed: random seed of the baselines' folds.
        device: where the graph runs.
        threads: threads of one operator; 0 lets ONNX Runtime choose.
        notify: called with a message on training rows that are left out.
        on_file: called with the metrics of each file as soon as they are known.
        read: runs the graph; ``layerguard.scale.ray`` runs it in other processes.

    Raises:
        InputError: a file cannot be opened, or has no row with a label.
        CalibrationError: too few training rows of a label.
        BundleError: the bundle is invalid, or has no detectors.
    """
    sets = [(name, read_labelled(own)) for name, own in _sets(rows)]
    guard = Guard.load(Path(bundle), device=device, threads=threads)
    methods = detector_methods(guard.bundle)
    faults: list[str] = []
    if train:
        baselines = fit_baselines(guard.backbone, train, rows, seed, read)
        methods += baselines.methods
        faults += baselines.faults
        if baselines.dropped:
            notify(f"dropped {baselines.dropped} rows of --train that the measured files hold")
    measured: list[Measured] = []
    for name, labelled in sets:
        measured.append(measure(guard.backbone, methods, guard.decision, name, labelled, read))
        faults += measured[-1].faults
        on_file(measured[-1].result)
    scored = tuple(row for item in measured for row in item.rows)
    return Evaluation(
        bundle_id=guard.bundle.id,
        guard=guard_rule(guard),
        files=tuple(item.result for item in measured),
        domains=_domains(guard, scored),
        rows=scored,
        faults=tuple(faults),
    )


def _sets(sources: RowSources) -> list[tuple[str, RowSources]]:
    """Every file with its name, and one set of all rows that are given without a file."""
    items = listed(sources)
    files: list[tuple[str, RowSources]] = [(p.stem, [p]) for p in items if isinstance(p, Path)]
    rows = [row for row in items if isinstance(row, Row)]
    return [*files, *([(_NAME, rows)] if rows else [])]


def _domains(guard: Guard, scored: Sequence[ScoredRow]) -> tuple[Cell, ...]:
    """False-positive rates of each domain's thresholds on every domain, over all files."""
    scores = {name: scores_of(scored, name) for name in guard.decision.enforced}
    return matrix(guard.decision, scores, [row.row for row in scored])
