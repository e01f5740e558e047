"""Compare a tuned model with its base: which layers changed most, and what excites the change.

BASE is a folder with config.json and safetensors; TUNED the same of the tuned model, or the folder
of a LoRA adapter. Only the matrices that write into the residual stream are read: the outputs of
attention (o_proj) and of the feed-forward part (down_proj), under every supported architecture's
names, one pair at a time.

With --bundle, exported from the tuned model, and --corpus, the texts are shown that excite the
strongest directions of the change most, at either end: what tuning added is often plain to see.

The exit code is 1 if a matrix changed by more than --max-change. A bad row is reported with its
line; the others are used, and the exit code is then 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from layerguard.calibration import weights
from layerguard.calibration.audit import (
    Excitation,
    MatrixChange,
    excitations,
    matrix_changes,
    strongest,
)
from layerguard.calibration.audit_report import html_page, json_objects, text_tables
from layerguard.calibration.page import write_page
from layerguard.calibration.weightwatch_directions import RANKS, directions
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.errors import InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import read_rows


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help="folder of the model before tuning")
    add("tuned", type=Path, metavar="TUNED", help="folder of the tuned model, or of its adapter")
    add("--bundle", type=Path, metavar="BUNDLE", help="bundle of the tuned model, for --corpus")
    add("--corpus", type=Path, nargs="+", default=[], metavar="ROWS", help="texts to search")
    add(
        "--ranks",
        type=int,
        default=RANKS,
        metavar="N",
        help=f"singular values of each matrix (default: {RANKS})",
    )
    add(
        "--shown",
        type=int,
        default=10,
        metavar="N",
        help="matrices in the table, most changed first (default: 10); --json and --html have all",
    )
    add("--directions", type=int, default=5, metavar="N", help="strongest directions (default: 5)")
    add("--texts", type=int, default=5, metavar="N", help="texts at either end (default: 5)")
    add(
        "--max-change",
        type=float,
        metavar="SHARE",
        help="flag, with exit code 1, a matrix whose relative change is above this share",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write a page of HTML with plots")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Audit and print; 1 if a matrix changed too much, 2 if any row was bad."""
    _check(arguments)
    tuning = weights.between(arguments.base, arguments.tuned)
    rows = read_rows(arguments.corpus) if arguments.corpus else None
    bundle = Bundle.load(arguments.bundle) if arguments.bundle else None
    matrices = matrix_changes(tuning, arguments.ranks)
    found: list[Excitation] = []
    faults: Sequence[str] = ()
    if bundle is not None and rows is not None:
        model = bundle.manifest.model
        watched = directions(tuning, model.total_layers, ranks=arguments.ranks, kept=model.layers)
        backbone = Backbone(bundle, arguments.device, arguments.threads)
        top = strongest(watched, arguments.directions)
        found, unread = excitations(backbone, rows.good, top, arguments.texts)
        faults = (*rows.faults, *unread)
    flagged = _above(matrices, arguments.max_change)
    if arguments.json:
        for item in json_objects(matrices, found):
            print(json.dumps(item, allow_nan=False), flush=True)
    else:
        print(text_tables(matrices, found, arguments.shown))
    if arguments.html:
        title = f"{arguments.tuned.resolve().name} against {arguments.base.resolve().name}"
        write_page(arguments.html, html_page(title, matrices, found))
    for sentence in (*flagged, *faults):
        print(f"layerguard audit: {sentence}", file=sys.stderr)
    return 2 if faults else int(bool(flagged))


def _check(arguments: Namespace) -> None:
    faults = [
        f"--{name}: found {value}; expected 1 or more"
        for name in ("ranks", "shown", "directions", "texts")
        if (value := getattr(arguments, name)) < 1
    ]
    if bool(arguments.bundle) != bool(arguments.corpus):
        lacking = "--corpus" if arguments.bundle else "--bundle"
        faults.append(f"found no {lacking}; expected --bundle and --corpus together")
    if arguments.max_change is not None and not arguments.max_change >= 0:
        faults.append(f"--max-change: found {arguments.max_change}; expected a share, 0 or more")
    if faults:
        raise InputError("; ".join(faults))


def _above(matrices: Sequence[MatrixChange], limit: float | None) -> list[str]:
    """A sentence for each matrix that changed too much, or by what is not a number."""
    if limit is None:
        return []
    return [
        f"{matrix.part} of layer {matrix.layer} changed by {100 * matrix.relative_change:.3g} %; "
        f"expected at most {100 * limit:g} %"
        for matrix in matrices
        if not matrix.relative_change <= limit
    ]
