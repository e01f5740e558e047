"""Measure a calibrated bundle on labelled rows, file by file.

If rows have a "domain", a second table shows the share of each domain's clean rows that is flagged
at the thresholds of all traffic and at those of every domain that has its own.

With --train, two baselines are fitted on those rows and measured too: TF-IDF with logistic
regression, and the best single-layer probe. Training rows that the measured files contain are left
out.

--report writes a page with intervals, curves, thresholds and the worst errors, and beside it a JSON
file with the same figures and every row. --compare measures a second bundle on the same rows and
adds it to the page.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.runtime.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add("rows", type=Path, nargs="+", metavar="ROWS", help="files of rows with labels")
    add("--train", type=Path, nargs="+", default=[], metavar="ROWS", help="rows for baselines")
    add(
        "--report",
        type=Path,
        metavar="OUT.html",
        help="also write an HTML page, and OUT.json with every row beside it",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for the JSON and Parquet files (default: that of --report); without --report "
        "they are named evaluation",
    )
    add("--parquet", action="store_true", help="also write the rows as Parquet; needs pyarrow")
    add("--no-texts", action="store_true", help="leave the rows' texts out of page and files")
    add("--compare", type=Path, metavar="BUNDLE", help="a second bundle for the page")
    options.add_seed(parser, "the baselines' folds")
    options.add_json(parser)
    options.add_session(parser)
