"""Turn a transformer into a bundle: an ONNX graph of its hidden states, with its tokenizer.

A decoder gets a second graph, with the same weights, that continues a text token by token. Each
graph is compared with PyTorch before the bundle is written.
"""

from argparse import ArgumentParser
from pathlib import Path

from layerguard.exporter.layers_argument import layers_argument
from layerguard.exporter.proof.tolerance import TOLERANCES


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
    add(
        "--base",
        metavar="MODEL",
        help="the model before it was tuned, if it was tuned without an adapter: the graph then "
        "gives what tuning adds to each text (with --adapter it always does)",
    )
    add("--id", metavar="NAME", help="name of the model in the manifest")
    add("--revision", metavar="REV", help="branch, tag or commit of a hub model")
    add("--trust-remote-code", action="store_true", help="run the code in the model's repository")
