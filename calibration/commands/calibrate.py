"""Fit the detectors of a bundle to your own traffic and freeze them into it.

--clean rows, prompts that are fine, calibrate LCF; 200 or more, as varied as the traffic.
With --base and --tuned, or --adapter, they calibrate WeightWatch as well, on what tuning changed;
rows with a response then say how far normal answers go.
--labelled rows, with "label" 0 or 1, train SIREN. The graph runs exactly as it will serve, so the
thresholds fit the device. Detectors that are not calibrated now are kept as they are.

--target-fpr is for the whole guard: the thresholds of all detectors are set together, on the clean
rows (without --clean, on the labelled ones of label 0). Where these carry a "domain", and enough of
them do, texts of that domain get thresholds of their own.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

from layerguard.calibration import lcf
from layerguard.calibration.commands.summary import decision_lines, detector_line, dropped_lines
from layerguard.calibration.decision import Policy
from layerguard.calibration.fit_all import How, fit_all
from layerguard.calibration.freeze import freeze
from layerguard.calibration.labelled import LabelledRows, read_clean, read_labelled
from layerguard.calibration.leakage import TestTexts, prompt_group
from layerguard.calibration.together import KeptDetectors, settle_together
from layerguard.calibration.weights import Tuning, adapter_alone, between
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    add = parser.add_argument
    add("--clean", type=Path, nargs="+", default=[], metavar="ROWS", help="clean prompts, for LCF")
    add("--labelled", type=Path, nargs="+", default=[], metavar="ROWS", help="rows with labels")
    add(
        "--test",
        type=Path,
        nargs="+",
        default=[],
        metavar="ROWS",
        help="files you will test on: rows whose text they hold are dropped and counted",
    )
    add("--base", type=Path, metavar="DIR", help="the model before tuning, for WeightWatch")
    add("--tuned", type=Path, metavar="DIR", help="the tuned model: safetensors, with --base")
    add("--adapter", type=Path, metavar="DIR", help="its LoRA adapter, with --base or alone")
    add_policy(parser)
    add(
        "--shadow",
        nargs="+",
        default=[],
        metavar="NAME",
        help="detectors that are read and reported, and never decide",
    )
    add("--mode", choices=get_args(lcf.Mode), default="cross-fit", help="thresholds")
    add("--eta", type=float, default=0.9, metavar="SHARE", help="SIREN: probe weight that is kept")
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of the temporary files of states, on a disk (default: the system's folder for "
        "such files); up to half a gigabyte stays in memory",
    )
    options.add_seed(parser, "everything random")
    options.add_session(parser)


def add_policy(parser: ArgumentParser) -> None:
    """The target and who decides."""
    parser.add_argument(
        "--target-fpr",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of clean traffic that the whole guard may flag (default: 0.01)",
    )
    parser.add_argument(
        "--policy",
        default="any",
        metavar="any|all|NAME",
        help="how many detectors have to flag, or the name of the only one that decides "
        "(default: any)",
    )


def run(arguments: Namespace) -> int:
    """Fit, freeze and say what was found; 2 if any row was bad."""
    if not arguments.clean and not arguments.labelled:
        raise InputError("found neither --clean nor --labelled; expected rows to calibrate on")
    bundle = Bundle.load(arguments.bundle)
    tests = TestTexts.read(arguments.test)
    faults = list(tests.faults)
    clean: tuple[Row, ...] = ()
    labelled: tuple[Row, ...] = ()
    if arguments.clean:
        clean = _without_leaks(read_clean(arguments.clean), tests, "--clean", faults)
    if arguments.labelled:
        labelled = _without_leaks(read_labelled(arguments.labelled), tests, "--labelled", faults)
    texts = clean or tuple(row for row in labelled if row.label == 0)
    asked = len({prompt_group(row) for row in texts})
    tuning = _tuning(arguments)
    fits = {"lcf": bool(clean), "weightwatch": tuning is not None, "siren": bool(labelled)}
    now = {name for name, asked_for in fits.items() if asked_for}
    kept = bundle.manifest.detectors.keys() - now
    policy = Policy.over(now | kept, arguments.policy, arguments.shadow, arguments.target_fpr)
    if arguments.mode != "reference":
        policy.check_support(asked, now | kept)

    others = KeptDetectors(bundle, kept, texts)
    if arguments.mode != "reference":
        _check_kept(others, texts, policy, now | kept)

    backbone = Backbone(bundle, arguments.device, arguments.threads)
    how = How(arguments.mode, arguments.eta, arguments.target_fpr, arguments.seed, arguments.cache)
    model = bundle.manifest.model
    fitted, found = fit_all(backbone, model, clean, labelled, tuning, others, how)
    faults += found
    try:
        settled = settle_together(
            bundle, fitted, others.columns(), texts, (*clean, *labelled), policy
        )
    except CalibrationError:
        _report(faults)  # they may be why
        raise
    dropped = dropped_lines(bundle)
    manifest = freeze(bundle, backbone, [item.calibrated for item in fitted], settled)
    for name in sorted(now):
        print(detector_line(name, manifest.detectors[name]))
    print("\n".join([*decision_lines(settled.card, asked), *dropped]))
    print(f"wrote {arguments.bundle} (id {Bundle.load(arguments.bundle).id})")
    _report(faults)
    return 2 if faults else 0


def _report(faults: Sequence[str]) -> None:
    for fault in faults:
        print(f"layerguard calibrate: {fault}", file=sys.stderr)


def _check_kept(
    kept: KeptDetectors, rows: Sequence[Row], policy: Policy, detectors: Collection[str]
) -> None:
    """Refuse clean texts of which too few have a score of the detectors that are kept.

    Raises:
        CalibrationError: saying how many have none, and why.
    """
    asked = set(map(prompt_group, rows))
    scored = kept.texts() if kept.names else asked
    try:
        policy.check_support(len(scored), detectors)
    except CalibrationError as error:
        names = ", ".join(kept.names)
        raise CalibrationError(
            f"{error}. {len(asked) - len(scored)} of {len(asked)} are left out: detectors of the "
            f"bundle were fitted on them, and {names}, kept as calibrated before, has no score of "
            "them; calibrate all detectors in one call"
        ) from error


def _tuning(arguments: Namespace) -> Tuning | None:
    """What tuning changed, where WeightWatch is asked for.

    Raises:
        InputError: the options do not say it, or a folder cannot be read.
    """
    base, tuned, adapter = arguments.base, arguments.tuned, arguments.adapter
    if not (base or tuned or adapter):
        return None
    if (tuned and adapter) or (tuned and not base) or (base and not (tuned or adapter)):
        given = [f"--{name}" for name in ("base", "tuned", "adapter") if getattr(arguments, name)]
        raise InputError(
            f"found {' and '.join(given)}; expected --base and --tuned, --base and --adapter, or "
            "--adapter alone"
        )
    if not arguments.clean:
        raise InputError(
            "found no --clean; expected clean rows, on which WeightWatch is calibrated"
        )
    return between(base, tuned or adapter) if base else adapter_alone(adapter)


def _without_leaks(
    found: LabelledRows, tests: TestTexts, option: str, faults: list[str]
) -> tuple[Row, ...]:
    """The rows that the test files do not hold; what was wrong with others goes to ``faults``."""
    faults += found.faults
    kept = tests.without(found.rows)
    if len(kept) < len(found.rows):
        dropped = len(found.rows) - len(kept)
        print(f"dropped {dropped} of {len(found.rows)} rows of {option}: in --test")
    return kept
