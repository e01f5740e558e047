"""Turn a transformer into a bundle: an ONNX graph of its hidden states, with its tokenizer.

A decoder gets a second graph, with the same weights, that continues a text token by token. Each
graph is compared with PyTorch before the bundle is written.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from transformers.utils import logging

from layerguard.exporter.layers_argument import layers_argument
from layerguard.exporter.pipeline import Exported, Options, export
from layerguard.exporter.proof.tolerance import TIMES_ROUNDING, TOLERANCES
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.cli.streams import show


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of ``layerguard export``."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with config.json and weights, GGUF file, or hub id")
    add("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add(
        "--mode",
        choices=("pooled", "states"),
        default="pooled",
        help="pooled: last-token and mean states, and for decoders the states of every token "
        "(default); states: the states of every token only",
    )
    add("--dtype", choices=tuple(TOLERANCES), default="float32", help="default: float32")
    add(
        "--layers",
        type=layers_argument,
        metavar="N",
        help="keep the first N blocks (default: all); @FILE: the number that this output of "
        "`layerguard trace --json` suggests",
    )
    add(
        "--decode",
        choices=("auto", "yes", "no"),
        default="auto",
        help="add a graph that continues a text with a cache, for streams and guarded "
        "generation: auto: if the model supports it (default); yes: or fail",
    )
    add("--mlp", action="store_true", help="add the mean feed-forward output of each block")
    add(
        "--analysis",
        action="store_true",
        help="add a graph of each layer's logits, for `layerguard trace` only",
    )
    add("--max-tokens", type=int, metavar="N", help="longest row (default: what the model takes)")
    add(
        "--template",
        metavar="TEXT",
        help="'chat', or a text that contains {prompt} (default: the chat template of a decoder if "
        "it has one, else {prompt})",
    )
    add(
        "--windows",
        choices=("head-tail", "sliding"),
        default="head-tail",
        help="how to read longer texts: head and tail in one row (default), or overlapping rows",
    )
    add(
        "--max-windows",
        type=int,
        default=8,
        metavar="N",
        help="most rows of one text with --windows sliding (default: 8)",
    )
    add(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="folder of a LoRA adapter in PEFT's format, merged into the weights",
    )
    add("--id", metavar="NAME", help="name of the model in the manifest")
    add("--revision", metavar="REV", help="branch, tag or commit of a hub model")
    add("--trust-remote-code", action="store_true", help="run the code in the model's repository")


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
