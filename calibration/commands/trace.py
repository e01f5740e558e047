"""Trace where a model forms its answers, and which of its layers is fragile.

Reads a bundle that was exported with --analysis. For each prompt (TEXT, or rows of JSONL with
--input) it follows the probability of one token through the layers: the first of the row's "target"
or "response", or the model's own most probable next token. Then it masks one layer at a time and
measures how far the output moves (Jensen-Shannon divergence in nats, 0 to ln 2).

  largest ratio    the layer with the largest ratio of the probability to that of the layer before
  first rise       the first layer where that ratio and the probability are both significant
  most vulnerable  the layer whose masking moves the output most

With --json the last line is the summary of all prompts; its suggested_layers can be given to
`layerguard export --layers @FILE`. A bad row is reported with its line; the others are used, and
the exit code is then 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from layerguard.calibration.page import write_page
from layerguard.calibration.trace.curves import Rise
from layerguard.calibration.trace.graph import AnalysisGraph
from layerguard.calibration.trace.masks import Mask, Mode
from layerguard.calibration.trace.prompt import trace_prompt
from layerguard.calibration.trace.report import (
    Named,
    findings,
    html_page,
    layer_table,
    prompt_table,
)
from layerguard.calibration.trace.rows import PromptReader
from layerguard.calibration.trace.summary import COVER, check_cover, summarize
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.text.request import request

_MASK, _RISE = Mask(), Rise()


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add("text", nargs="?", metavar="TEXT", help="the prompt to trace, or - for standard input")
    add("--input", type=Path, metavar="ROWS", help="a JSONL file of prompts to trace, or -")
    add(
        "--target",
        choices=("row", "model"),
        default="row",
        help="row: the token that the row gives, where it gives one (default); model: always the "
        "model's most probable one",
    )
    add(
        "--mask",
        choices=get_args(Mode),
        default="zero",
        help="zero: the layer is skipped (default); ablate: its output is 0, alike for every "
        "layer of a model without biases; dim-mask: a random share of its output's dimensions is 0",
    )
    add(
        "--share",
        type=float,
        default=_MASK.share,
        metavar="SHARE",
        help="of the dimensions that dim-mask sets to 0 (default: 0.5)",
    )
    options.add_seed(parser, "the choice of dimensions")
    add(
        "--least-ratio",
        type=float,
        default=_RISE.least_ratio,
        metavar="R",
        help="a significant rise is at least so many times the layer before (default: 2)",
    )
    add(
        "--least-probability",
        type=float,
        default=_RISE.least_probability,
        metavar="P",
        help="and reaches at least this probability (default: 0.01)",
    )
    add(
        "--floor",
        type=float,
        default=_RISE.floor,
        metavar="P",
        help="probabilities are divided by no less than this (default: 1e-12); near 0.01 it keeps "
        "the noise of early layers out of the largest ratio",
    )
    add(
        "--cover",
        type=float,
        default=COVER,
        metavar="SHARE",
        help="share of the prompts whose first rise and largest ratio the suggested layers hold "
        "(default: 0.9)",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write a page with plots")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print every prompt's trace and their summary; 2 if any row was bad."""
    mask = Mask(arguments.mask, arguments.share, arguments.seed)
    rise = Rise(arguments.least_ratio, arguments.least_probability, arguments.floor)
    check_cover(arguments.cover)
    rows, found = _rows(arguments)
    faults = list(found)
    bundle = Bundle.load(arguments.bundle)
    graph = AnalysisGraph(bundle, arguments.device, arguments.threads)
    named = []
    for item in _traces(PromptReader(bundle), graph, rows, faults, arguments.target, mask, rise):
        named.append(item)
        if arguments.json:
            print(json.dumps(item.to_json(), allow_nan=False), flush=True)
    for fault in faults:
        print(f"layerguard trace: {fault}", file=sys.stderr)
    if not named:
        return InputError.exit_code
    summary = summarize([item.trace for item in named], arguments.cover)
    if arguments.json:
        asked = {"mask": asdict(mask), "rise": asdict(rise), "cover": arguments.cover}
        line = {"bundle_id": bundle.id, **asked, **summary.to_json()}
        print(json.dumps(line, allow_nan=False))
    else:
        print("\n\n".join([prompt_table(named), layer_table(summary), *findings(summary, mask)]))
    if arguments.html:
        title = f"{bundle.manifest.model.id} (bundle {bundle.id})"
        write_page(arguments.html, html_page(title, named, summary, mask))
    return InputError.exit_code if faults else 0


def _rows(arguments: Namespace) -> tuple[Sequence[Row], Sequence[str]]:
    """The rows to trace and a sentence for each bad one."""
    if (arguments.text is None) == (arguments.input is None):
        both = "both TEXT and --input" if arguments.input else "neither TEXT nor --input"
        raise InputError(f"found {both}; expected one of them")
    if arguments.input is not None:
        rows = read_rows([arguments.input])
        return rows.good, rows.faults
    return [Row(id="text", request=request(options.given_text(arguments.text)), place="text")], ()


def _traces(
    reader: PromptReader,
    graph: AnalysisGraph,
    rows: Sequence[Row],
    faults: list[str],
    whose: Literal["row", "model"],
    mask: Mask,
    rise: Rise,
) -> Iterator[Named]:
    """The traces in the rows' order; what cannot be traced goes to ``faults``."""
    disable = None if len(rows) > 1 else True
    for row in tqdm(rows, desc="tracing", unit="prompt", disable=disable):
        try:
            prompt = reader.read(row)
            target = prompt.target if whose == "row" else None
            trace = trace_prompt(graph, prompt.ids, target, mask=mask, rise=rise)
        except InputError as error:
            faults.append(f"{row.place}: {error}")
            continue
        yield Named(prompt, reader.spell(trace.target), trace)
