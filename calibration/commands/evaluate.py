"""Measure a calibrated bundle on labelled rows, file by file.

If rows have a "domain", a second table shows the share of each domain's clean rows that is flagged
at the thresholds of all traffic and at those of every domain that has its own.

With --train, two baselines are fitted on those rows and measured too: TF-IDF with logistic
regression, and the best single-layer probe. Training rows that the measured files contain are left
out.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from layerguard.calibration.evaluation.domains import matrix_table
from layerguard.calibration.evaluation.evaluate import evaluate
from layerguard.calibration.evaluation.report import html_page, text_table
from layerguard.calibration.evaluation.results import FileResult
from layerguard.calibration.notify import silent
from layerguard.calibration.report.page import write_page
from layerguard.runtime.cli import options
from layerguard.runtime.cli.table import render


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add("rows", type=Path, nargs="+", metavar="ROWS", help="files of rows with labels")
    add("--train", type=Path, nargs="+", default=[], metavar="ROWS", help="rows for baselines")
    add("--report", type=Path, metavar="OUT.html", help="also write an HTML page")
    options.add_seed(parser, "the baselines' folds")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print the metrics of every file; return 2 if any row was bad."""
    as_json = arguments.json
    result = evaluate(
        arguments.bundle,
        arguments.rows,
        train=arguments.train,
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        notify=silent if as_json else print,
        on_file=_print_json if as_json else silent,
    )
    if as_json:
        for cell in result.domains:
            print(json.dumps(asdict(cell)))
    else:
        print(text_table(result.files))
        if result.domains:
            print(f"\n{render(*matrix_table(result.domains))}")
    if arguments.report:
        title = f"Bundle {result.bundle_id}"
        write_page(arguments.report, html_page(result.files, result.domains, title))
    for fault in result.faults:
        print(f"layerguard eval: {fault}", file=sys.stderr)
    return 2 if result.faults else 0


def _print_json(result: FileResult) -> None:
    print(json.dumps(asdict(result), allow_nan=False), flush=True)
