"""Trace where a model forms its answers, and which of its layers is fragile.

The bundle must be exported with --analysis. For each prompt (TEXT, or rows of JSONL with --input)
the command follows the probability of one token through the layers: the first token of the row's
"target" or "response", or the model's most probable next token. Then it masks one layer at a time
and measures the change of the output (Jensen-Shannon divergence in nats, 0 to ln 2).

  largest ratio    the layer with the largest ratio of the probability to that of the layer before
  first rise       the first layer where that ratio and the probability are both significant
  most vulnerable  the layer whose masking changes the output most

With --json the last line is the summary of all prompts; its suggested_layers can be given to
`layerguard export --layers @FILE`. A bad row is reported with its line; the others are used, and
the exit code is then 2.
"""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from layerguard.calibration.layertracer.curves import Rise
from layerguard.calibration.layertracer.masks import Mask, Mode
from layerguard.calibration.layertracer.report import (
    findings,
    html_page,
    layer_table,
    prompt_table,
)
from layerguard.calibration.layertracer.summary import COVER
from layerguard.calibration.layertracer.trace import trace
from layerguard.calibration.layertracer.traced_prompt import TracedPrompt
from layerguard.calibration.notify import silent
from layerguard.calibration.report.page import write_page
from layerguard.calibration.rows.sources import RowSources
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
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
        help="row: the row's own token if it has one (default); model: always the model's most "
        "probable token",
    )
    add(
        "--mask",
        choices=get_args(Mode),
        default="zero",
        help="zero: skip the layer (default); ablate: set its output to 0, which has the same "
        "effect at every layer of a model without biases; dim-mask: set a random share of the "
        "dimensions of its output to 0",
    )
    add(
        "--share",
        type=float,
        default=_MASK.share,
        metavar="SHARE",
        help="share of the dimensions that dim-mask sets to 0 (default: 0.5)",
    )
    options.add_seed(parser, "the choice of dimensions")
    add(
        "--least-ratio",
        type=float,
        default=_RISE.least_ratio,
        metavar="R",
        help="least ratio of a significant rise to the layer before (default: 2)",
    )
    add(
        "--least-probability",
        type=float,
        default=_RISE.least_probability,
        metavar="P",
        help="least probability after a significant rise (default: 0.01)",
    )
    add(
        "--floor",
        type=float,
        default=_RISE.floor,
        metavar="P",
        help="least divisor of a ratio (default: 1e-12); a value near 0.01 removes the noise of "
        "early layers from the largest ratio",
    )
    add(
        "--cover",
        type=float,
        default=COVER,
        metavar="SHARE",
        help="share of the prompts whose first rise and largest ratio lie within the suggested "
        "layers (default: 0.9)",
    )
    add("--html", type=Path, metavar="OUT.html", help="also write a page with plots")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print every prompt's trace and their summary; return 2 if any row was bad."""
    mask = Mask(arguments.mask, arguments.share, arguments.seed)
    rise = Rise(arguments.least_ratio, arguments.least_probability, arguments.floor)
    options.try_graphs(arguments, [arguments.bundle])
    result = trace(
        arguments.bundle,
        _prompts(arguments),
        target=arguments.target,
        mask=mask,
        rise=rise,
        cover=arguments.cover,
        device=arguments.device,
        threads=arguments.threads,
        on_prompt=_print_json if arguments.json else silent,
    )
    show_faults("trace", result.faults)
    if result.summary is None:
        return InputError.exit_code
    if arguments.json:
        settings = {"mask": asdict(mask), "rise": asdict(rise), "cover": arguments.cover}
        line = {"bundle_id": result.bundle_id, **settings, **result.summary.to_json()}
        print(json.dumps(line, allow_nan=False))
    else:
        tables = [prompt_table(result.prompts), layer_table(result.summary)]
        show(*"\n\n".join([*tables, *findings(result.summary, mask)]).split("\n"))
    if arguments.html:
        title = f"Trace of {result.model_id} (bundle {result.bundle_id})"
        write_page(arguments.html, html_page(title, result.prompts, result.summary, mask))
    return InputError.exit_code if result.faults else 0


def _print_json(prompt: TracedPrompt) -> None:
    print(json.dumps(prompt.to_json(), allow_nan=False), flush=True)


def _prompts(arguments: Namespace) -> RowSources:
    """The prompts to trace: a file of rows, or one row of the given text."""
    if (arguments.text is None) == (arguments.input is None):
        both = "both TEXT and --input" if arguments.input else "neither TEXT nor --input"
        raise InputError(f"found {both}; expected one of them")
    if arguments.input is not None:
        return [arguments.input]
    return [Row(id="text", request=request(options.given_text(arguments.text)), place="text")]
