"""Fit the detectors of a bundle to your own traffic and freeze them into it.

--clean rows are harmless prompts. They calibrate LCF; use 200 or more, as varied as the traffic.
With --base and --tuned, or --adapter, they also calibrate WeightWatch on the weight changes of
tuning; rows with a response then set the bounds for answers.
--labelled rows, with "label" 0 or 1, train SIREN. If rows have "spans", the character offsets of
what was injected ([] where the place is not known), they also train span; or --payloads are
inserted into half of the documents among these rows. The graph runs as it will serve, so the
thresholds fit the device. Detectors that are not calibrated in this call are kept unchanged.

--target-fpr holds for the whole guard: the thresholds of all detectors are set together on the
clean rows (without --clean, on the labelled rows of label 0). A "domain" with enough of these rows
gets thresholds of its own.

Rows may have a "source" (else their "domain"). Each of the largest sources is left out in turn: a
detector that surely flags more than --max-shift times the target of a source that it has not seen
is put in shadow. It is fitted once more for each source.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from layerguard.calibration.calibrator import Mode
from layerguard.calibration.commands.summary import decision_lines, detector_line, removed_line
from layerguard.calibration.guard.calibrate import calibrate
from layerguard.calibration.thresholds.conformal import DEFAULT_TARGET_FPR
from layerguard.calibration.votes.ballot import DEFAULT_MAX_SHIFT
from layerguard.calibration.weights.tuning import Tuning, adapter_alone, between
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.votes import vote_lines
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import OnUnfamiliar


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    add = parser.add_argument
    add("--clean", type=Path, nargs="+", default=[], metavar="ROWS", help="clean prompts, for LCF")
    add("--labelled", type=Path, nargs="+", default=[], metavar="ROWS", help="rows with labels")
    add(
        "--payloads",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="texts to insert into half of the documents among the rows of --labelled, for span",
    )
    add(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="test files: rows whose text they contain are left out and counted",
    )
    add("--base", type=Path, metavar="DIR", help="the model before tuning, for WeightWatch")
    add("--tuned", type=Path, metavar="DIR", help="the tuned model: safetensors, with --base")
    add("--adapter", type=Path, metavar="DIR", help="its LoRA adapter, with --base or alone")
    add(
        "--target-fpr",
        type=float,
        default=DEFAULT_TARGET_FPR,
        metavar="SHARE",
        help="share of clean traffic that the whole guard may flag (default: 0.01)",
    )
    add(
        "--policy",
        default="any",
        metavar="any|all|NAME",
        help="whether any or all detectors have to flag, or the name of the only detector that "
        "decides (default: any)",
    )
    add(
        "--shadow",
        nargs="+",
        default=[],
        metavar="NAME",
        help="detectors whose scores are reported but never decide",
    )
    add(
        "--enforce",
        action="append",
        default=[],
        metavar="NAME",
        help="a detector that decides whatever is measured; may be repeated",
    )
    add(
        "--max-shift",
        type=float,
        default=DEFAULT_MAX_SHIFT,
        metavar="TIMES",
        help="multiple of the target that a detector may flag of a source that it has not seen; "
        "beyond it, it is put in shadow (default: 3)",
    )
    add("--mode", choices=get_args(Mode), default="cross-fit", help="how thresholds are set")
    add(
        "--eta",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="SIREN: share of a probe's weight that its chosen neurons hold (default: 0.9)",
    )
    add(
        "--on-unfamiliar",
        choices=get_args(OnUnfamiliar),
        default="allow",
        help="what the guard does with a text that is unlike the clean rows: the detectors decide, "
        "it is flagged, or the verdict asks for another check (default: allow)",
    )
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder on a disk for temporary files of states (default: the system's folder for "
        "temporary files); up to half a gigabyte stays in memory",
    )
    options.add_seed(parser, "everything random")
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Calibrate and print the result; return 2 if any row was bad."""
    try:
        result = calibrate(
            arguments.bundle,
            clean=arguments.clean,
            labelled=arguments.labelled,
            payloads=arguments.payloads,
            tuning=_tuning(arguments),
            test=arguments.test,
            target_fpr=arguments.target_fpr,
            policy=arguments.policy,
            shadow=arguments.shadow,
            enforce=arguments.enforce,
            max_shift=arguments.max_shift,
            mode=arguments.mode,
            eta=arguments.eta,
            on_unfamiliar=arguments.on_unfamiliar,
            seed=arguments.seed,
            cache=arguments.cache,
            device=arguments.device,
            threads=arguments.threads,
            notify=show,
        )
    except CalibrationError as error:
        _report(getattr(error, "__notes__", ()))
        raise
    for name, card in result.detectors.items():
        show(detector_line(name, card))
    for line in (
        *decision_lines(result.decision, result.clean_texts),
        *vote_lines(result.votes),
        *map(removed_line, result.removed),
    ):
        show(line)
    show(f"wrote {arguments.bundle} (id {result.bundle_id})")
    _report(result.faults)
    return 2 if result.faults else 0


def _report(faults: Sequence[str]) -> None:
    show_faults("calibrate", faults)


def _tuning(arguments: Namespace) -> Tuning | None:
    """The weight changes of tuning, or None if no option names weights.

    Raises:
        InputError: the options are an invalid combination, or a folder cannot be read.
    """
    base, tuned, adapter = arguments.base, arguments.tuned, arguments.adapter
    if not (base or tuned or adapter):
        return None
    if (tuned and adapter) or (tuned and not base) or (base and not (tuned or adapter)):
        named = [f"--{name}" for name in ("base", "tuned", "adapter") if getattr(arguments, name)]
        raise InputError(
            f"found {' and '.join(named)}; expected --base and --tuned, --base and --adapter, or "
            "--adapter alone"
        )
    return between(base, tuned or adapter) if base else adapter_alone(adapter)
