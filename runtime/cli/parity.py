"""Compare two bundles on the same rows: float32 and int8, or before and after an upgrade.

For each detector that both bundles have: the largest and the median difference of its scores, the
rank correlation of its scores, and the share of rows flagged at each bundle's own threshold. For
the guard as a whole: the verdicts that flip, row by row.

The exit code is 1 if more verdicts flip than --max-flips allows. A bad row is reported with its
line; the other rows are compared, and the exit code is then 2.
"""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from layerguard.runtime.bundle_comparison import (
    DecisionComparison,
    ScoreComparison,
    compare_decisions,
    compare_scores,
)
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.table import render
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.check_rows import check_rows
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.types import Verdict

Pairs = Sequence[tuple[Row, Verdict, Verdict]]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("a", type=Path, metavar="BUNDLE_A", help="folder of the first bundle")
    add("b", type=Path, metavar="BUNDLE_B", help="folder of the second bundle")
    add("rows", type=Path, nargs="+", metavar="ROWS", help="JSONL files; labels are ignored")
    add(
        "--max-flips",
        type=_count,
        default=0,
        metavar="N",
        help="most verdicts that may flip (default: 0)",
    )
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print the comparison; 1 if too many verdicts flip, 2 if a row was bad."""
    rows = read_rows(arguments.rows)
    a, b = [
        Guard.load(
            path,
            device=arguments.device,
            threads=arguments.threads,
            timeout=arguments.timeout,
        )
        for path in (arguments.a, arguments.b)
    ]
    common = _common(a, b)
    faults = list(rows.faults)
    pairs = _pairs(a, b, rows.good, faults)
    ids = [row.id for row, _, _ in pairs]
    whole = compare_decisions(
        ids, [v.flagged for _, v, _ in pairs], [v.flagged for _, _, v in pairs]
    )
    detectors = {name: _compare(name, ids, pairs) for name in common}
    exceeded = len(whole.flips) > arguments.max_flips
    if arguments.json:
        for name, (compared, decided) in detectors.items():
            print(json.dumps({"detector": name, **asdict(compared), **asdict(decided)}))
        about = {"bundle_a": a.bundle.id, "bundle_b": b.bundle.id, "exceeded": exceeded}
        print(json.dumps({**about, "max_flips": arguments.max_flips, **asdict(whole)}))
    else:
        named = (("a", arguments.a, a), ("b", arguments.b, b))
        show(*(f"{name}: {path} ({guard.bundle.id})" for name, path, guard in named), "")
        show(*_table(detectors, whole).split("\n"))
        show(*_flips(whole, pairs, arguments.max_flips))
    show_faults("parity", faults)
    return 2 if faults else int(exceeded)


def _common(a: Guard, b: Guard) -> list[str]:
    """The detectors that both guards have, in the order of the first guard."""
    of_a, of_b = a.bundle.manifest.detectors, b.bundle.manifest.detectors
    common = [name for name in of_a if name in of_b]
    if not common:
        raise InputError(
            f"found detectors {', '.join(of_a)} in the first bundle and {', '.join(of_b)} in the "
            "second; expected a detector that both have: calibrate them in the same way"
        )
    return common


def _pairs(a: Guard, b: Guard, rows: Sequence[Row], faults: list[str]) -> Pairs:
    """Both verdicts on each row that both guards can read."""
    first = {row.place: verdict for row, verdict in check_rows(a, rows, faults, "scoring with a")}
    good = [row for row in rows if row.place in first]
    pairs = [(row, first[row.place], v) for row, v in check_rows(b, good, faults, "scoring with b")]
    if not pairs:
        listed = "".join(f"\n  - {fault}" for fault in faults[:5])
        raise InputError(f"found no row that both bundles can read; expected at least one{listed}")
    return pairs


def _compare(
    name: str, ids: Sequence[str], pairs: Pairs
) -> tuple[ScoreComparison, DecisionComparison]:
    """Compare the scores and decisions of one detector."""
    of_a, of_b = zip(*[(a.readings[name], b.readings[name]) for _, a, b in pairs], strict=True)
    return (
        compare_scores([reading.score for reading in of_a], [reading.score for reading in of_b]),
        compare_decisions(ids, [r.flagged for r in of_a], [r.flagged for r in of_b]),
    )


def _table(
    detectors: Mapping[str, tuple[ScoreComparison, DecisionComparison]], whole: DecisionComparison
) -> str:
    header = ("", "rows", "largest", "median", "rank corr.", "flagged a", "flagged b", "flips")
    lines = [
        (
            name,
            str(compared.compared),
            _number(compared.largest_difference, ".4g"),
            _number(compared.median_difference, ".4g"),
            _number(compared.rank_correlation, ".5f"),
            *_shares(decided),
        )
        for name, (compared, decided) in detectors.items()
    ]
    return render(header, [*lines, ("verdict", str(whole.rows), "", "", "", *_shares(whole))])


def _shares(decided: DecisionComparison) -> tuple[str, str, str]:
    shares = f"{decided.flagged_a:.2%}", f"{decided.flagged_b:.2%}"
    return *shares, str(len(decided.flips))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _flips(whole: DecisionComparison, pairs: Pairs, allowed: int) -> list[str]:
    """Each verdict that flips, with the reason of the guard that flags."""
    lines = ["", f"{len(whole.flips)} of {whole.rows} verdicts flip; {allowed} allowed"]
    for row, a, b in pairs:
        if a.flagged != b.flagged:
            name, reason = ("a", a.reason) if a.flagged else ("b", b.reason)
            lines.append(f"  {row.id}: flagged only by {name}; {reason}")
    return lines


def _count(text: str) -> int:
    """A whole number, 0 or more.

    Raises:
        ArgumentTypeError: the text is not such a number.
    """
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"found {text!r}; expected a whole number, 0 or more")
    return int(text)
