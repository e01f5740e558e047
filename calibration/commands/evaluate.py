"""Measure a calibrated bundle on labelled rows, file by file.

Where rows carry a "domain", a second table says which share of each domain's clean rows is flagged
at the thresholds of all traffic and at those of every domain that has its own.

With --train, two baselines are fitted on those rows, less what the measured files hold, and
measured beside it: TF-IDF with logistic regression, and the best single-layer probe.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from layerguard.calibration.domains import Cell, matrix, matrix_table
from layerguard.calibration.evaluate import (
    Measured,
    detector_methods,
    fit_baselines,
    measure,
)
from layerguard.calibration.figures import FileResult
from layerguard.calibration.labelled import read_labelled
from layerguard.calibration.page import write_page
from layerguard.calibration.report import html_page, text_table
from layerguard.runtime.cli import options
from layerguard.runtime.cli.table import render
from layerguard.runtime.guard import Guard


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add("rows", type=Path, nargs="+", metavar="ROWS", help="files of rows with labels")
    add("--train", type=Path, nargs="+", default=[], metavar="ROWS", help="rows for baselines")
    add("--report", type=Path, metavar="OUT.html", help="also write a page of HTML")
    options.add_seed(parser, "the baselines' folds")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print the figures of every file; 2 if any row was bad."""
    for path in arguments.rows:
        read_labelled([path])  # a file of no use stops the work before it begins
    guard = Guard.load(arguments.bundle, device=arguments.device, threads=arguments.threads)
    methods = detector_methods(guard.bundle)
    faults: list[str] = []
    if arguments.train:
        baselines = fit_baselines(
            guard.backbone, arguments.train, arguments.rows, seed=arguments.seed
        )
        methods += baselines.methods
        faults += baselines.faults
        if baselines.dropped and not arguments.json:
            print(f"dropped {baselines.dropped} rows of --train that the measured files hold")
    files = []
    for path in arguments.rows:
        files.append(measure(guard.backbone, methods, guard.decision, path))
        faults += files[-1].faults
        if arguments.json:
            print(json.dumps(asdict(files[-1].result), allow_nan=False), flush=True)
    results = [measured.result for measured in files]
    cells = _matrix(guard, files)
    _conclude(results, cells, as_json=arguments.json)
    if arguments.report:
        write_page(arguments.report, html_page(results, cells, f"Bundle {guard.bundle.id}"))
    for fault in faults:
        print(f"layerguard eval: {fault}", file=sys.stderr)
    return 2 if faults else 0


def _conclude(results: Sequence[FileResult], cells: Sequence[Cell], *, as_json: bool) -> None:
    """What can only be printed at the end."""
    if as_json:
        for cell in cells:
            print(json.dumps(asdict(cell)))
        return
    print(text_table(results))
    if cells:
        print(f"\n{render(*matrix_table(cells))}")


def _matrix(guard: Guard, files: Sequence[Measured]) -> tuple[Cell, ...]:
    """Thresholds of each domain on the clean rows of each, over all files."""
    rows = [row for measured in files for row in measured.rows]
    scores = {
        name: np.concatenate([measured.scores[name] for measured in files])
        for name in guard.bundle.manifest.detectors
    }
    return matrix(guard.decision, scores, rows)
