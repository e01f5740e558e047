"""Turn a transformer into a bundle: an ONNX graph of its hidden states, with its tokenizer.

The graph is compared with PyTorch before anything is written.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from transformers.utils import logging

from layerguard.exporter.parity import GATES, Comparison
from layerguard.exporter.pipeline import Options, export
from layerguard.runtime.bundle.manifest import Manifest, OutputCard


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``layerguard export``."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with config.json and weights, or a hub id")
    add("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add(
        "--mode",
        choices=("pooled", "states"),
        default="pooled",
        help="pooled: last-token and mean states (default); states: every token's",
    )
    add("--dtype", choices=tuple(GATES), default="float32", help="default: float32")
    add("--layers", type=int, metavar="N", help="keep the first N blocks (default: all)")
    add("--mlp", action="store_true", help="also the mean feed-forward output of each block")
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
    add("--id", metavar="NAME", help="the model's name in the manifest")
    add("--revision", metavar="REV", help="branch, tag or commit of a hub model")
    add("--trust-remote-code", action="store_true", help="run code that comes with the model")


def run(arguments: Namespace) -> int:
    """Export and print the proof, one line a layer."""
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = {name: value for name, value in vars(arguments).items() if name not in _OWN}
    manifest, comparison = export(arguments.model, arguments.out, Options(**options))
    for line in report(manifest, comparison):
        print(line)
    print(f"wrote {arguments.out}")
    return 0


_OWN = ("model", "out")
"""Arguments of the command that are no export options."""


def report(manifest: Manifest, comparison: Comparison) -> list[str]:
    """The proof as a table: largest difference and cosine distance of each layer."""
    model = manifest.model
    graph = manifest.graphs["score"]
    gate = GATES[model.dtype]
    blocks = f"{model.layers} of {model.total_layers} blocks"
    what = f"{model.architecture}, {model.kind}, {blocks}, width {model.width}"
    limit = f"{gate.measure.replace('_', ' ')} <= {gate.limit:g}"
    lines = [
        f"{model.id}: {what}, {model.dtype}, {graph.mode}",
        f"compared with PyTorch on {comparison.shapes} shapes (gate: {limit})",
        "  layer          largest difference   cosine distance",
    ]
    rows: dict[str, list[OutputCard]] = {}
    for card in graph.outputs:
        part = card.kind.partition("_")[0]
        label = str(card.layer) if part in ("state", "last", "mean") else f"{part} {card.layer}"
        rows.setdefault(label, []).append(card)
    for label, cards in rows.items():
        largest = max(comparison.largest[card.name] for card in cards)
        distance = max(comparison.cosine_distance[card.name] for card in cards)
        lines.append(f"  {label:<12} {largest:20.2e} {distance:17.2e}")
    return lines
