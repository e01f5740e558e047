"""Compares weights; ``arguments/audit.py`` describes the command."""

import json
from argparse import Namespace

from layerguard.calibration.auditing.audit import Audit, audit
from layerguard.calibration.auditing.report import (
    harmless_sentence,
    html_page,
    json_objects,
    text_tables,
)
from layerguard.calibration.report.page import write_page
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.errors import InputError


def run(arguments: Namespace) -> int:
    """Audit and print; return 1 if a matrix changed too much, 2 if any row was bad."""
    _check(arguments)
    options.try_graphs(arguments, filter(None, [arguments.bundle]))
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
