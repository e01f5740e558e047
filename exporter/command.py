"""Exports a model; ``arguments.py`` describes the command."""

import sys
from argparse import Namespace

from transformers.utils import logging

from layerguard.exporter.pipeline import Exported, Options, export
from layerguard.exporter.proof.tolerance import TIMES_ROUNDING, TOLERANCES
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.cli.streams import show


def run(arguments: Namespace) -> int:
    """Export and print the result of the export check, one line per layer."""
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = {name: value for name, value in vars(arguments).items() if name not in _OWN}
    show(*report(export(arguments.model, arguments.out, Options(**options))))
    show(f"wrote {arguments.out}")
    return 0


_OWN = ("model", "out")
"""Arguments that are not fields of ``Options``."""


def report(exported: Exported) -> list[str]:
    """The lines that describe an export: for each graph and layer, its differences from PyTorch."""
    model = exported.manifest.model
    tolerance = TOLERANCES[model.dtype]
    blocks = f"{model.layers} of {model.total_layers} blocks"
    description = f"{model.architecture}, {model.kind}, {blocks}, width {model.width}"
    allowed = f"{tolerance.measure.replace('_', ' ')} <= {tolerance.value:g}"
    if tolerance.measure == "difference":
        allowed += f", or {TIMES_ROUNDING} times PyTorch's own rounding"
    lines = [f"{model.id}: {description}, {model.dtype}"]
    if model.quantisation:
        lines.append(f"weights: dequantised from {model.quantisation}")
    lines += exported.notes
    for name, graph in exported.manifest.graphs.items():
        proof = exported.proofs[name]
        batches = f"{proof.shapes} batches (tolerance: {allowed})"
        lines.append(f"{name} graph, {graph.mode}: compared with PyTorch on {batches}")
        lines.append("  layer          largest difference   PyTorch's float32   cosine distance")
        rows: dict[str, list[str]] = {}
        for card in graph.outputs:
            rows.setdefault(_label(card), []).append(card.name)
        for label, names in rows.items():
            largest = max(proof.largest[output] for output in names)
            rounding = max(proof.rounding[output] for output in names)
            distance = max(proof.cosine_distance[output] for output in names)
            lines.append(f"  {label:<12} {largest:20.2e} {rounding:19.2e} {distance:17.2e}")
    lines += [f"no {name} graph: {reason}" for name, reason in exported.skipped.items()]
    lines += [
        f"the chat template refuses {form}: {message}" for form, message in exported.refused.items()
    ]
    return lines


def _label(card: OutputCard) -> str:
    """The label of a row of the table: a layer's number, after the kind unless it is a state."""
    part = card.kind.partition("_")[0]
    if part in ("key", "value"):
        return "cache"
    return str(card.layer) if part in ("state", "last", "mean") else f"{part} {card.layer}"
