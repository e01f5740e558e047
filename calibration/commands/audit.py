"""Compare a tuned model with its base: which layers changed most, and what excites the change.

BASE is a folder with config.json and safetensors, or a GGUF file. TUNED is the tuned model in the
same form, or the folder of a LoRA adapter. The command reads only the matrices that write into the
residual stream: the outputs of attention (o_proj) and of the feed-forward part (down_proj), under
the names of every supported architecture.

With --bundle, exported from the tuned model, and --corpus, the command shows the texts that most
excite the strongest directions of the change, at both ends. They often show what tuning added.

With --harmless, each matrix is shown beside the range of its changes in fine-tunes of the same base
that are known to be harmless; those that changed by more are named.

The exit code is 1 if a matrix changed by more than --max-change. A bad row is reported with its
line; the others are used, and the exit code is then 2.
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.calibration.auditing.audit import Audit, audit
from layerguard.calibration.auditing.report import (
    harmless_sentence,
    html_page,
    json_objects,
    text_tables,
)
from layerguard.calibration.report.page import write_page
from layerguard.calibration.weightwatch.directions import RANKS
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.errors import InputError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help="folder of the model before tuning")
    add("tuned", type=Path, metavar="TUNED", help="folder of the tuned model, or of its adapter")
    add("--bundle", type=Path, metavar="BUNDLE", help="bundle of the tuned model, for --corpus")
    add("--corpus", type=Path, nargs="+", default=[], metavar="ROWS", help="texts to search")
    add(
        "--harmless",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="harmless fine-tunes of BASE, for comparison: each in the form of TUNED",
    )
    add(
        "--ranks",
        type=int,
        default=RANKS,
        metavar="N",
        help=f"number of singular values of each matrix (default: {RANKS})",
    )
    add(
        "--shown",
        type=int,
        default=10,
        metavar="N",
        help="matrices in the table, most changed first (default: 10); --json and --html show all",
    )
    add(
        "--directions",
        type=int,
        default=5,
        metavar="N",
        help="number of directions to search texts for, strongest first (default: 5)",
    )
    add(
        "--texts",
        type=int,
        default=5,
        metavar="N",
        help="number of texts at each end of a direction (default: 5)",
    )
    add(
        "--max-change",
        type=float,
        metavar="SHARE",
        help="exit with code 1 if the relative change of a matrix is above this share",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write an HTML page with plots")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Audit and print; return 1 if a matrix changed too much, 2 if any row was bad."""
    _check(arguments)
    result = audit(
        arguments.base,
        arguments.tuned,
        bundle=arguments.bundle,
        corpus=arguments.corpus,
        harmless=arguments.harmless,
        ranks=arguments.ranks,
        strongest_directions=arguments.directions,
        texts=arguments.texts,
        device=arguments.device,
        threads=arguments.threads,
    )
    if arguments.json:
        for item in json_objects(result.matrices, result.excitations):
            print(json.dumps(item, allow_nan=False), flush=True)
    else:
        tables = text_tables(result.matrices, result.excitations, arguments.shown)
        show(*tables.split("\n"))
        if arguments.harmless:
            show("", harmless_sentence(result.matrices))
    if arguments.html:
        names = [path.resolve().name for path in (arguments.tuned, arguments.base)]
        title = f"Weight changes: {' against '.join(names)}"
        write_page(arguments.html, html_page(title, result.matrices, result.excitations))
    flagged = _too_much(result, arguments.max_change)
    show_faults("audit", (*flagged, *result.faults))
    return 2 if result.faults else int(bool(flagged))


def _check(arguments: Namespace) -> None:
    faults = [
        f"--{name}: found {value}; expected 1 or more"
        for name in ("ranks", "shown", "directions", "texts")
        if (value := getattr(arguments, name)) < 1
    ]
    if bool(arguments.bundle) != bool(arguments.corpus):
        missing = "--corpus" if arguments.bundle else "--bundle"
        faults.append(f"found no {missing}; expected --bundle and --corpus together")
    if arguments.max_change is not None and not arguments.max_change >= 0:
        faults.append(f"--max-change: found {arguments.max_change}; expected a share, 0 or more")
    if faults:
        raise InputError("; ".join(faults))


def _too_much(result: Audit, max_change: float | None) -> list[str]:
    """One message for each matrix whose relative change is above ``max_change``."""
    if max_change is None:
        return []
    return [
        f"{matrix.part} of layer {matrix.layer} changed by {100 * matrix.relative_change:.3g} %; "
        f"expected at most {100 * max_change:g} %"
        for matrix in result.above(max_change)
    ]
