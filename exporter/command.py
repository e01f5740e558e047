"""Turn a transformer into a bundle: an ONNX graph of its hidden states, with its tokenizer.

A decoder gets a second graph, of the same weights, that continues a text token by token. Each graph
is compared with PyTorch before anything is written.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from transformers.utils import logging

from layerguard.exporter.pipeline import Exported, Options, export
from layerguard.exporter.proof.comparison import GATES, TIMES_ROUNDING
from layerguard.exporter.suggestion import layers_argument
from layerguard.runtime.bundle.manifest import OutputCard


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``layerguard export``."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with config.json and weights, GGUF file, or hub id")
    add("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add(
        "--mode",
        choices=("pooled", "states"),
        default="pooled",
        help="pooled: last-token and mean states, of decoders every token's as well (default); "
        "states: every token's alone",
    )
    add("--dtype", choices=tuple(GATES), default="float32", help="default: float32")
    add(
        "--layers",
        type=layers_argument,
        metavar="N",
        help="keep the first N blocks (default: all); @FILE: as many as `layerguard trace --json` "
        "suggests there for this model",
    )
    add(
        "--decode",
        choices=("auto", "yes", "no"),
        default="auto",
        help="also a graph that continues a text over a cache, for streams and guarded "
        "generation: auto, where the model is a decoder that can have one (default); yes, or fail",
    )
    add("--mlp", action="store_true", help="also the mean feed-forward output of each block")
    add(
        "--analysis",
        action="store_true",
        help="also a graph of each layer's logits, which `layerguard trace` reads; no guard does",
    )
    add("--max-tokens", type=int, metavar="N", help="longest row (default: the model's limit)")
    add(
        "--template",
        metavar="TEXT",
        help="'chat', or a text with {prompt} in it (default: a decoder's chat template where it "
        "has one, else the bare prompt)",
    )
    add(
        "--windows",
        choices=("head-tail", "sliding"),
        default="head-tail",
        help="longer texts: their head and tail in one row (default), or overlapping rows",
    )
    add("--max-windows", type=int, default=8, metavar="N", help="of one text (default: 8)")
    add(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="LoRA adapter in PEFT's format to merge into the weights",
    )
    add("--id", metavar="NAME", help="the model's name in the manifest")
    add("--revision", metavar="REV", help="branch, tag or commit of a hub model")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")


def run(arguments: Namespace) -> int:
    """Export and print the proof, one line a layer."""
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = {name: value for name, value in vars(arguments).items() if name not in _OWN}
    for line in report(export(arguments.model, arguments.out, Options(**options))):
        print(line)
    print(f"wrote {arguments.out}")
    return 0


_OWN = ("model", "out")
"""Arguments of the command that are no export options."""


def report(exported: Exported) -> list[str]:
    """The proof of each graph, by layer: differences from PyTorch in float64, and its rounding."""
    model = exported.manifest.model
    gate = GATES[model.dtype]
    blocks = f"{model.layers} of {model.total_layers} blocks"
    what = f"{model.architecture}, {model.kind}, {blocks}, width {model.width}"
    limit = f"{gate.measure.replace('_', ' ')} <= {gate.limit:g}"
    if gate.measure == "difference":
        limit += f", or {TIMES_ROUNDING} times PyTorch's own rounding"
    lines = [f"{model.id}: {what}, {model.dtype}"]
    if model.quantisation:
        lines.append(f"weights: dequantised from {model.quantisation}")
    lines += exported.notes
    for name, graph in exported.manifest.graphs.items():
        comparison = exported.proofs[name]
        batches = f"{comparison.shapes} batches (gate: {limit})"
        lines.append(f"{name} graph, {graph.mode}: compared with PyTorch on {batches}")
        lines.append("  layer          largest difference   PyTorch's float32   cosine distance")
        rows: dict[str, list[str]] = {}
        for card in graph.outputs:
            rows.setdefault(_label(card), []).append(card.name)
        for label, names in rows.items():
            largest = max(comparison.largest[output] for output in names)
            rounding = max(comparison.rounding[output] for output in names)
            distance = max(comparison.cosine_distance[output] for output in names)
            lines.append(f"  {label:<12} {largest:20.2e} {rounding:19.2e} {distance:17.2e}")
    lines += [f"no {name} graph: {reason}" for name, reason in exported.skipped.items()]
    lines += [f"the chat template refuses {form}: {w}" for form, w in exported.refused.items()]
    return lines


def _label(card: OutputCard) -> str:
    """The table's row: a layer's number, alone where its states are meant."""
    part = card.kind.partition("_")[0]
    if part in ("key", "value"):
        return "cache"
    return str(card.layer) if part in ("state", "last", "mean") else f"{part} {card.layer}"
