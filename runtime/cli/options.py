"""Options that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import get_args

from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.cli.streams import standard_input
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Weights


def add_bundle(parser: ArgumentParser) -> None:
    """The bundle's folder or name, as the first argument."""
    what = "folder of the bundle, or name of an installed one"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=what)


def add_written_bundle(parser: ArgumentParser) -> None:
    """The folder of a bundle that the command changes, as the first argument."""
    parser.add_argument("bundle", type=_own, metavar="BUNDLE", help="folder of the bundle")


def given_text(text: str) -> str:
    """The text that an argument gives; ``-`` stands for standard input.

    Raises:
        InputError: standard input is closed, or not UTF-8.
    """
    return standard_input() if text == "-" else text


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


def add_weights(parser: ArgumentParser) -> None:
    """How the graphs hold their weights."""
    parser.add_argument(
        "--weights",
        choices=get_args(Weights),
        default="packed",
        help="packed, the default: each graph has a copy laid out for speed; mapped: all graphs "
        "and processes read the one file, which needs less memory and makes checks slower",
    )


def add_verify(parser: ArgumentParser) -> None:
    """The key that the bundle must be signed with."""
    parser.add_argument(
        "--verify", type=Path, metavar="PUBLIC", help="refuse what is not signed with this key"
    )


def load_guard(arguments: Namespace) -> Guard:
    """The guard that ``add_bundle``, ``add_session``, ``add_weights`` and ``add_verify`` ask for.

    Raises:
        LayerGuardError: as ``Guard.load``.
    """
    return Guard.load(
        arguments.bundle,
        device=arguments.device,
        threads=arguments.threads,
        verify=arguments.verify,
        weights=arguments.weights,
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


def _own(text: str) -> Path:
    """A folder of the caller's.

    Raises:
        BundleError: there is no such folder.
        InputError: it is an installed bundle, which belongs to pip.
    """
    folder = Path(text)
    found = find_bundle(folder)
    if found != folder:
        raise InputError(
            f"{text} is an installed bundle, in {found}; expected a folder to write: copy it "
            f"(cp -r {found} {text}), and pack it again when that is done"
        )
    return folder


def _seed(text: str) -> int:
    """What numpy and scikit-learn both take.

    Raises:
        ArgumentTypeError: it is no whole number from 0 to 2^31 - 1.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 31:
        raise ArgumentTypeError(f"found {text!r}; expected a whole number from 0 to 2147483647")
    return int(text)
