"""Measures a bundle; ``arguments/evaluate.py`` describes the command."""

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerguard.calibration.evaluation.analysis import analyse
from layerguard.calibration.evaluation.domains import matrix_table
from layerguard.calibration.evaluation.evaluate import Evaluation, evaluate
from layerguard.calibration.evaluation.files import check_parquet, write_json, write_parquet
from layerguard.calibration.evaluation.page.page import html_page
from layerguard.calibration.evaluation.report import text_table
from layerguard.calibration.evaluation.results import FileResult
from layerguard.calibration.notify import silent
from layerguard.calibration.report.page import write_page
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.table import render
from layerguard.runtime.errors import InputError


def run(arguments: Namespace) -> int:
    """Print the metrics of every file; return 2 if any row was bad."""
    _check(arguments)
    options.try_guard(arguments, filter(None, [arguments.bundle, arguments.compare]))
    as_json = arguments.json
    result = _measured(
        arguments,
        arguments.bundle,
        train=arguments.train,
        notify=silent if as_json else show,
        on_file=_print_json if as_json else silent,
    )
    if as_json:
        for cell in result.domains:
            print(json.dumps(asdict(cell)))
    else:
        show(*text_table(result.files).split("\n"))
        if result.domains:
            show("", *render(*matrix_table(result.domains)).split("\n"))
    _write(arguments, result)
    show_faults("eval", result.faults)
    return 2 if result.faults else 0


def _measured(arguments: Namespace, bundle: Path, **settings: Any) -> Evaluation:
    return evaluate(
        bundle,
        arguments.rows,
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        **settings,
    )


def _check(arguments: Namespace) -> None:
    """Refuse calls whose files could not be written, before anything is measured."""
    faults = []
    if arguments.compare and not arguments.report:
        faults.append("found --compare without --report; expected both")
    if arguments.parquet and not (arguments.report or arguments.out):
        faults.append("found --parquet without --report or --out; expected where to write it")
    if arguments.out and not arguments.out.is_dir():
        faults.append(f"--out: found {arguments.out}; expected a folder")
    if faults:
        raise InputError("; ".join(faults))
    if arguments.parquet:
        check_parquet()


def _write(arguments: Namespace, result: Evaluation) -> None:
    """Write the page and the files that were asked for."""
    page, texts = arguments.report, not arguments.no_texts
    if page is None and arguments.out is None:
        return
    analysis = analyse(result)
    if page is not None:
        other = _measured(arguments, arguments.compare) if arguments.compare else None
        title = f"Evaluation of bundle {result.bundle_id}"
        write_page(page, html_page(result, analysis, title, compared=other, texts=texts))
    folder = arguments.out or page.parent
    stem = "evaluation" if page is None else page.stem
    write_json(folder / f"{stem}.json", result, analysis, texts=texts)
    if arguments.parquet:
        write_parquet(folder / f"{stem}.parquet", result, texts=texts)


def _print_json(result: FileResult) -> None:
    print(json.dumps(asdict(result), allow_nan=False), flush=True)
