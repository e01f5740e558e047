"""Fits the detectors of a bundle; ``arguments/calibrate.py`` describes the command."""

from argparse import Namespace
from collections.abc import Sequence

from layerguard.calibration.commands.summary import decision_lines, detector_line, removed_line
from layerguard.calibration.guard.calibrate import calibrate
from layerguard.calibration.weights.tuning import Tuning, adapter_alone, between
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.cli.votes import vote_lines
from layerguard.runtime.errors import CalibrationError, InputError


def run(arguments: Namespace) -> int:
    """Calibrate and print the result; return 2 if any row was bad."""
    options.try_graphs(arguments, [arguments.bundle])
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
            window=arguments.window,
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
