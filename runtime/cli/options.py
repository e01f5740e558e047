"""Options that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError
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


def add_seed(parser: ArgumentParser, what: str) -> None:
    """The seed; ``what`` says of what."""
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help=f"of {what} (default: 0)"
    )


def _seed(text: str) -> int:
    """What numpy and scikit-learn both take.

    Raises:
        ArgumentTypeError: it is no whole number from 0 to 2^31 - 1.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 31:
        raise ArgumentTypeError(f"found {text!r}; expected a whole number from 0 to 2147483647")
    return int(text)
