"""Put a calibrated bundle's detectors and decision into one ONNX graph, fused.onnx.

Any ONNX Runtime binding runs it with no LayerGuard code: token ids and mask in; of each detector a
score and a p-value out, and `flagged`. It uses standard operators alone and shares the bundle's
weights.data. Thresholds are inputs that need not be fed. A score that is not finite is flagged.

Before anything is written, graph and runtime read the same texts, each alone and several at once:
no score may differ by more than 1e-5 of 1 + |score|, and no verdict at all. Whatever changes the
detectors afterwards (calibrate, recalibrate, import-siren) drops the fused graph: fuse again.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.exporter.fused.pipeline import Fused, fuse
from layerguard.runtime.cli import options
from layerguard.runtime.rows import read_rows


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="rows to prove the graph on (default: thirty texts of several lengths and scripts)",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Fuse and print the proof; 2 if any row was bad."""
    found = read_rows(arguments.texts)
    requests = [row.request for row in found.good]
    made = fuse(arguments.bundle, requests, device=arguments.device, threads=arguments.threads)
    for line in report(made):
        print(line)
    print(f"wrote {arguments.bundle / made.card.file}")
    for fault in found.faults:
        print(f"layerguard fuse: {fault}", file=sys.stderr)
    return 2 if found.faults else 0


def report(made: Fused) -> list[str]:
    """Inputs, outputs and the proof, for a person."""
    card, proof = made.card, made.card.proof
    free = ", ".join(card.thresholds.values())
    lines = [
        f"inputs   {', '.join(card.inputs)}; need not be fed: {free}",
        f"outputs  {', '.join(card.outputs)}",
    ]
    lines += [
        f"{name}: largest difference from the runtime {apart:.2g} (allowed {proof.tolerance:g})"
        for name, apart in proof.largest.items()
    ]
    if card.columns:
        by_column = sorted(card.columns.items(), key=lambda item: item[1])
        listed = ", ".join(f"{name} {column}" for name, column in by_column)
        lines.append(f"rows[text, column] is the row that a detector reads; columns: {listed}")
    if "roles" in card.inputs:
        lines.append("roles says whose each token is: 0 system, 1 user, 2 assistant, 3 tool")
    lines.append(f"{proof.texts} texts, each alone and several at once; {proof.flips} flips")
    return lines
