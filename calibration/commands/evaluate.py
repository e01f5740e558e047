"""Measure a calibrated bundle on labelled rows, file by file.

With --train, two baselines are fitted on those rows, less what the measured files hold, and
measured beside it: TF-IDF with logistic regression, and the best single-layer probe.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from layerguard.calibration.commands.calibrate import seed
from layerguard.calibration.evaluate import detector_methods, fit_baselines, measure
from layerguard.calibration.figures import FileResult
from layerguard.calibration.labelled import read_labelled
from layerguard.calibration.report import html_page, text_table
from layerguard.runtime.cli import options
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add("rows", type=Path, nargs="+", metavar="ROWS", help="files of rows with labels")
    add("--train", type=Path, nargs="+", default=[], metavar="ROWS", help="rows for baselines")
    add("--report", type=Path, metavar="OUT.html", help="also write a page of HTML")
    add("--seed", type=seed, default=0, metavar="N", help="of the baselines' folds (default: 0)")
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
    results = []
    for path in arguments.rows:
        measured = measure(guard.backbone, methods, path)
        results.append(measured.result)
        faults += measured.faults
        if arguments.json:
            print(json.dumps(asdict(measured.result), allow_nan=False), flush=True)
    if not arguments.json:
        print(text_table(results))
    if arguments.report:
        _write(arguments.report, results, guard.bundle.id)
    for fault in faults:
        print(f"layerguard eval: {fault}", file=sys.stderr)
    return 2 if faults else 0


def _write(path: Path, results: list[FileResult], bundle_id: str) -> None:
    try:
        path.write_text(html_page(results, f"Bundle {bundle_id}"), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file to write to") from error
