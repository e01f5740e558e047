"""Generate the model's answer to a prompt; the guard checks the prompt and every token.

--on-flag abstain (the default) shows the answer after the whole answer was checked, or a fixed
sentence instead if it was flagged; steer removes the directions that WeightWatch flags from the
model's states and continues; log only reports. The exit code is 1 if anything was flagged. --json
prints one object per event.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import get_args

from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.table import verdict_lines
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.printable import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    add = parser.add_argument
    add(
        "prompt",
        metavar="PROMPT",
        help="the prompt, without its template, or - for standard input",
    )
    add(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="most tokens to generate (default: 256)",
    )
    add("--on-flag", choices=get_args(OnFlag), default="abstain", help="default: abstain")
    add(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0, the default, takes the most likely token",
    )
    add("--top-k", type=int, default=0, metavar="K", help="sample from the K most likely tokens")
    add(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample from the fewest most likely tokens with total probability P",
    )
    add("--seed", type=int, metavar="N", help="sampling seed (default: different every time)")
    add("--stop", nargs="+", default=[], metavar="TEXT", help="texts that end the answer")
    options.add_json(parser)
    options.add_session(parser)
    options.add_weights(parser)
    options.add_verify(parser)


def run(arguments: Namespace) -> int:
    """Print the released text of the answer, then the verdict; 1 if anything was flagged."""
    guard = options.load_guard(arguments)
    events = guard.generate(
        options.given_text(arguments.prompt),
        max_new_tokens=arguments.max_new_tokens,
        on_flag=arguments.on_flag,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=arguments.stop,
    )
    worst: Event | None = None
    last: Event | None = None
    for last in events:
        if last.verdict.flagged and worst is None:
            worst = last
        if arguments.json:
            line = {**asdict(last), "verdict": last.verdict.to_json()}
            print(json.dumps(line, allow_nan=False), flush=True)
        else:
            print(printable(last.text, keep="\n\t"), end="", flush=True)
    if not arguments.json and last is not None:
        print()
        lines = verdict_lines("answer", (worst or last).verdict)
        steered = [f"    steered  {name}" for name in last.steered]
        show(*lines, *steered, f"    ended    {last.finish}", to=sys.stderr)
    return int(worst is not None)
