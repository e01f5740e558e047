"""Fit the detectors of a bundle to your own traffic and freeze them into it.

--clean rows are harmless prompts. They calibrate LCF; use 200 or more, as varied as the traffic.
With --base and --tuned, or --adapter, they also calibrate WeightWatch on the weight changes of
tuning; rows with a response then set the bounds for answers. If the model was exported with
--adapter or --base, they also calibrate delta, which needs no option here.
--labelled rows, with "label" 0 or 1, train SIREN. If rows have "spans", the character offsets of
what was injected ([] where the place is not known), they also train span; or --payloads are
inserted into half of the documents among these rows; half of the documents, with and without, then
become results of tools, e-mails or parts of pages. The graph runs as it will serve, so the
thresholds fit the device. Detectors that are not calibrated in this call are kept unchanged.

--target-fpr holds for the whole guard: the thresholds of all detectors are set together on the
clean rows (without --clean, on the labelled rows of label 0). A "domain" with enough of these rows
gets thresholds of its own.

Rows may have a "source" (else their "domain"). Each of the largest sources is left out in turn: a
detector that surely flags more than --max-shift times the target of a source that it has not seen
is put in shadow. It is fitted once more for each source. If the clean rows name four sources of 30
texts or more, LCF, WeightWatch and delta get thresholds for a source that they have not seen
(--mode).

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import get_args

from layerguard.calibration.defaults import DEFAULT_MAX_SHIFT, DEFAULT_TARGET_FPR, Mode
from layerguard.runtime.cli import options
from layerguard.runtime.types import OnUnfamiliar


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    add = parser.add_argument
    add("--clean", type=Path, nargs="+", default=[], metavar="ROWS", help="clean prompts")
    add("--labelled", type=Path, nargs="+", default=[], metavar="ROWS", help="rows with labels")
    add(
        "--payloads",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="texts to insert into half of the documents among the rows of --labelled, for span",
    )
    add(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="test files: rows whose text they contain are left out and counted",
    )
    add("--base", type=Path, metavar="DIR", help="the model before tuning, for WeightWatch")
    add("--tuned", type=Path, metavar="DIR", help="the tuned model: safetensors, with --base")
    add("--adapter", type=Path, metavar="DIR", help="its LoRA adapter, with --base or alone")
    add(
        "--target-fpr",
        type=float,
        default=DEFAULT_TARGET_FPR,
        metavar="SHARE",
        help="share of clean traffic that the whole guard may flag (default: 0.01)",
    )
    add(
        "--policy",
        default="any",
        metavar="any|all|NAME",
        help="whether any or all detectors have to flag, or the name of the only detector that "
        "decides (default: any)",
    )
    add(
        "--shadow",
        nargs="+",
        default=[],
        metavar="NAME",
        help="detectors whose scores are reported but never decide",
    )
    add(
        "--enforce",
        action="append",
        default=[],
        metavar="NAME",
        help="a detector that decides whatever is measured; may be repeated",
    )
    add(
        "--max-shift",
        type=float,
        default=DEFAULT_MAX_SHIFT,
        metavar="TIMES",
        help="multiple of the target that a detector may flag of a source that it has not seen; "
        "beyond it, it is put in shadow (default: 3)",
    )
    add(
        "--mode",
        choices=get_args(Mode),
        help="how the thresholds of LCF, WeightWatch and delta are set (default: by-source if the "
        'clean rows name at least 4 sources in "source", each with 30 texts or more; else '
        "cross-fit)",
    )
    add(
        "--eta",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="SIREN: share of a probe's weight that its chosen neurons hold (default: 0.9)",
    )
    add(
        "--on-unfamiliar",
        choices=get_args(OnUnfamiliar),
        default="allow",
        help="what the guard does with a text that is unlike the clean rows: the detectors decide, "
        "it is flagged, or the verdict asks for another check (default: allow)",
    )
    add(
        "--window",
        type=int,
        metavar="N",
        help="SIREN: read overlapping windows of N tokens, of which the worst counts, so that "
        "harmless text around a harmful part does not hide it (default: the text as a whole)",
    )
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder on a disk for temporary files of states (default: the system's folder for "
        "temporary files); up to half a gigabyte stays in memory",
    )
    options.add_seed(parser, "everything random")
    options.add_session(parser)
