"""Write a model repository for Triton Inference Server from a fused bundle.

It gets two models. NAME takes texts and gives verdicts: a Python model that tokenises, and needs
layerguard in Triton's Python environment. NAME_graph is the fused graph, in Triton's onnxruntime
backend. Names, types and shapes in both config.pbtxt are those of the graph.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.triton.repository import write_repository


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="REPOSITORY",
        help="folder of the model repository; other models in it stay",
    )
    parser.add_argument("--name", help="name of the model (default: the bundle's folder)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where Triton runs the graph"
    )


def run(arguments: Namespace) -> int:
    """Write the models and print their folders."""
    bundle = find_bundle(arguments.bundle)
    name = arguments.name or bundle.resolve().name
    for folder in write_repository(bundle, arguments.out, name, arguments.device):
        show(f"wrote {folder}")
    return 0
