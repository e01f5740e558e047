"""Options that several commands share."""

from argparse import ArgumentParser
from pathlib import Path


def add_bundle(parser: ArgumentParser) -> None:
    """The bundle's folder, as the first argument."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")


def add_session(parser: ArgumentParser) -> None:
    """Where and with how many threads the graph runs."""
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda that does not engage is an error",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads within one operator (default: ONNX Runtime's choice)",
    )


def add_json(parser: ArgumentParser) -> None:
    """Machine-readable output."""
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line on stdout, nothing else there"
    )
