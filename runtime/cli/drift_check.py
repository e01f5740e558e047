"""Check whether a fine-tuning checkpoint is drifting into misalignment.

MONITOR is a folder that `layerguard drift fit` wrote for the base model. CHECKPOINT is the bundle
of a checkpoint, exported with the same options as the base model's bundle. The checkpoint is run on
the monitor's own prompts. No text is generated, and no judge model is needed.

The exit code is 1 on alarm, so that a training pipeline can stop. Numbers that are not finite
raise the alarm. Drift is given as a fraction of the base model's mean state length.
"""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.table import render
from layerguard.runtime.drift import CheckpointMonitor, DriftReading, TraitDrift


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("monitor", type=Path, metavar="MONITOR", help="folder of the monitor")
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="bundle of the checkpoint")
    add(
        "--step",
        type=int,
        metavar="N",
        help="training step of the checkpoint; a step-aware monitor needs it",
    )
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print the reading; 1 on alarm."""
    options.try_graphs(arguments, [arguments.checkpoint])
    monitor = CheckpointMonitor.load(arguments.monitor)
    reading = monitor.check(
        arguments.checkpoint,
        step=arguments.step,
        device=arguments.device,
        threads=arguments.threads,
    )
    if arguments.json:
        print(json.dumps(reading.to_json(), allow_nan=False))
    else:
        show(*_lines(reading))
    return int(reading.alarm)


def _lines(reading: DriftReading) -> Iterator[str]:
    word = {"invalid": "INVALID"}.get(reading.status, "ALARM" if reading.alarm else "ok")
    at_step = "" if reading.step is None else f" at step {reading.step}"
    yield f"{reading.checkpoint}{at_step}: {word}  {reading.reason}"
    rows = [
        [
            trait.name,
            f"{trait.drift:+.4f}",
            f"{trait.low:+.4f} .. {trait.high:+.4f}",
            _moved(trait),
        ]
        for trait in reading.traits
    ]
    yield ""
    yield from render(["trait", "drift", "aligned range", "moved"], rows, text_column=3).split("\n")


def _moved(trait: TraitDrift) -> str:
    if not math.isfinite(trait.drift):
        return "not finite"
    return f"outside the range, towards {trait.towards}" if trait.moved else ""
