"""Put a calibrated bundle's detectors and decision into one ONNX graph, fused.onnx.

Any ONNX Runtime binding runs it with no LayerGuard code: token ids and mask in; of each detector a
score and a p-value out, and `flagged`. It uses standard operators alone and shares the bundle's
weights.data. Thresholds are inputs that need not be fed. A score that is not finite is flagged.
A bundle with a decode graph gets fused_decode.onnx too, which reads a text in chunks.

Before anything is written, graph and runtime read the same texts, each alone and several at once:
no score may differ by more than 1e-5 of 1 + |score| (2e-3 where the model is in float16), and no
verdict at all. Whatever changes the detectors afterwards (calibrate, recalibrate, import-siren)
drops the fused graphs: fuse again.
"""

import re
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.fused import FusedCard
from layerguard.runtime.cli import options
from layerguard.runtime.rows.jsonl import read_rows


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="rows to prove the graph on (default: texts of several lengths and scripts)",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Fuse and print the proof; 2 if any row was bad."""
    found = read_rows(arguments.texts)
    requests = [row.request for row in found.good]
    signed = (arguments.bundle / SIGNATURE).exists()
    made = fuse(arguments.bundle, requests, device=arguments.device, threads=arguments.threads)
    for card in made.cards.values():
        print("\n".join(report(card)))
    if signed:
        print(f"{SIGNATURE} fell away: `layerguard sign` makes a new one")
    print(f"wrote {arguments.bundle}")
    for fault in found.faults:
        print(f"layerguard fuse: {fault}", file=sys.stderr)
    return 2 if found.faults else 0


def report(card: FusedCard) -> list[str]:
    """A graph's inputs, outputs and proof, for a person."""
    proof = card.proof
    lines = [
        f"{card.file}: {proof.texts} texts, {proof.flips} flips",
        *_listed("inputs", _shown(card.inputs)),
        *_listed("need not be fed", card.thresholds.values()),
        *_listed("outputs", _shown(card.outputs)),
    ]
    lines += [
        f"  {name}: largest difference from the runtime {apart:.2g} (allowed {proof.tolerance:g})"
        for name, apart in proof.largest.items()
    ]
    if card.columns:
        by_column = sorted(card.columns.items(), key=lambda item: item[1])
        listed = ", ".join(f"{name} {column}" for name, column in by_column)
        lines.append(f"  rows[text, column] is the row that a detector reads; columns: {listed}")
    if "roles" in card.inputs:
        lines.append("  roles says whose each token is: 0 system, 1 user, 2 assistant, 3 tool")
    if card.states:
        lines.append("  past_... of a state is what the run before gave, zeros at first")
    return lines


def _listed(what: str, names: Iterable[str]) -> list[str]:
    text = f"{what}: {', '.join(names)}"
    return textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="    ")


def _shown(names: Iterable[str]) -> list[str]:
    """Names, those that differ in a number alone told once: ``past_key_00`` as ``past_key_*``."""
    return list(dict.fromkeys(re.sub(r"_\d\d+$", "_*", name) for name in names))
