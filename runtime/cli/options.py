"""Options that several commands share."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.cli.streams import standard_input
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Weights
from layerguard.runtime.trial import load_in_time, run_in_time


def add_bundle(parser: ArgumentParser) -> None:
    """Add the bundle's folder or name as the first argument."""
    what = "folder of the bundle, or name of an installed one"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=what)


def add_written_bundle(parser: ArgumentParser) -> None:
    """Add the folder of a bundle that the command changes as the first argument."""
    parser.add_argument(
        "bundle", type=_writable_folder, metavar="BUNDLE", help="folder of the bundle"
    )


def given_text(text: str) -> str:
    """The text of an argument; ``-`` reads standard input.

    Raises:
        InputError: standard input is closed or empty, or not UTF-8.
    """
    return standard_input() if text == "-" else text


def add_session(parser: ArgumentParser) -> None:
    """Add the device and the threads of the graph, and the time within which the bundle loads."""
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="there is no silent fallback from cuda to cpu",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads within one operator (default: ONNX Runtime's choice)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="refuse a bundle that does not load within this time; it is loaded in another process "
        "first (default: no limit)",
    )


def add_weights(parser: ArgumentParser) -> None:
    """Add the choice between packed and mapped weights."""
    parser.add_argument(
        "--weights",
        choices=get_args(Weights),
        default="packed",
        help="packed, the default: each graph has its own copy in a fast memory layout; mapped: "
        "all graphs and processes share one file, which needs less memory and is slower",
    )


def add_verify(parser: ArgumentParser) -> None:
    """Add the public key that verifies the bundle's signature."""
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="PUBLIC",
        help="refuse a bundle that is not signed with this key",
    )


def load_guard(arguments: Namespace) -> Guard:
    """Load the guard from the options of this module.

    Raises:
        LayerGuardError: as ``Guard.load``.
    """
    return Guard.load(
        arguments.bundle,
        device=arguments.device,
        threads=arguments.threads,
        verify=arguments.verify,
        weights=arguments.weights,
        timeout=arguments.timeout,
    )


def try_guard(arguments: Namespace, bundles: Iterable[Path]) -> None:
    """With ``--timeout``, load a guard of each bundle in another process, within that time each.

    Raises:
        BundleError: a bundle did not load in time.
        InputError: the time is not a positive number.
    """
    if arguments.timeout is not None:
        session = {"device": arguments.device, "threads": arguments.threads}
        for bundle in bundles:
            load_in_time(find_bundle(bundle), session, arguments.timeout)


def try_graphs(arguments: Namespace, bundles: Iterable[Path]) -> None:
    """With ``--timeout``, run the graphs of each bundle in another process, within that time each.

    For commands that load no guard, because the bundle may have no detectors.

    Raises:
        BundleError: the graphs of a bundle did not end in time.
        InputError: the time is not a positive number.
    """
    if arguments.timeout is not None:
        for bundle in bundles:
            session = (arguments.device, arguments.threads)
            run_in_time(find_bundle(bundle), *session, arguments.timeout)


def add_json(parser: ArgumentParser) -> None:
    """Add the choice of machine-readable output."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per line on stdout, and nothing else there",
    )


def add_seed(parser: ArgumentParser, what: str) -> None:
    """Add the seed of ``what``."""
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help=f"seed of {what} (default: 0)"
    )


def _writable_folder(text: str) -> Path:
    """A folder that a command may change.

    Raises:
        BundleError: there is no such folder.
        InputError: it is an installed bundle, which pip manages.
    """
    folder = Path(text)
    located = find_bundle(folder)
    if located != folder:
        raise InputError(
            f"{text} is an installed bundle, in {located}; expected a folder to write: copy it "
            f"(cp -r {located} {text}), change the copy, and pack it again"
        )
    return folder


def _seed(text: str) -> int:
    """A seed that numpy and scikit-learn both accept.

    Raises:
        ArgumentTypeError: it is not a whole number from 0 to 2^31 - 1.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 31:
        raise ArgumentTypeError(f"found {text!r}; expected a whole number from 0 to 2147483647")
    return int(text)
