"""Fit the detectors of a bundle to your own traffic and freeze them into it.

--clean rows, prompts that are fine, calibrate LCF; 200 or more, as varied as the traffic.
--labelled rows, with "label" 0 or 1, train SIREN. The graph runs exactly as it will serve, so the
thresholds fit the device. Detectors that are not calibrated now are kept as they are.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from layerguard.calibration import conformal, lcf, siren
from layerguard.calibration.collect import collect
from layerguard.calibration.freeze import Calibrated, freeze
from layerguard.calibration.labelled import labels_of, read_labelled
from layerguard.calibration.leakage import TestTexts, prompt_group
from layerguard.runtime.backbone import Backbone
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows import Row, read_rows

_ROWS_ADVISED = 200


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A calibrated detector and a sentence for each row that could not be read."""

    calibrated: Calibrated
    faults: tuple[str, ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
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
    add(
        "--target-fpr",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of clean traffic that each detector may flag (default: 0.01)",
    )
    add("--mode", choices=get_args(lcf.Mode), default="cross-fit", help="LCF's threshold")
    add("--eta", type=float, default=0.9, metavar="SHARE", help="SIREN: probe weight that is kept")
    add("--seed", type=seed, default=0, metavar="N", help="of everything random (default: 0)")
    options.add_session(parser)


def seed(text: str) -> int:
    """A seed from the command line: what numpy and scikit-learn both take.

    Raises:
        ArgumentTypeError: it is no whole number from 0 to 2^31 - 1.
    """
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 31:
        raise ArgumentTypeError(f"found {text!r}; expected a whole number from 0 to 2147483647")
    return int(text)


def run(arguments: Namespace) -> int:
    """Fit, freeze and say what was found; 2 if any row was bad."""
    if not arguments.clean and not arguments.labelled:
        raise InputError("found neither --clean nor --labelled; expected rows to calibrate on")
    bundle = Bundle.load(arguments.bundle)
    tests = TestTexts.read(arguments.test)
    clean, clean_faults = _clean_rows(arguments.clean)
    labelled = read_labelled(arguments.labelled) if arguments.labelled else None
    faults = [*tests.faults, *clean_faults, *(labelled.faults if labelled else ())]
    clean = _without_leaks(clean, tests, "--clean")
    known = _without_leaks(labelled.rows if labelled else (), tests, "--labelled")
    if arguments.mode != "reference":
        _check_support(clean, arguments.target_fpr, asked=bool(arguments.clean))
    harmless = [row for row in known if row.label == 0]
    _check_support(harmless, arguments.target_fpr, asked=bool(arguments.labelled))

    backbone = Backbone(bundle, arguments.device, arguments.threads)
    outcomes = []
    if arguments.clean:
        outcomes.append(_fit_lcf(backbone, clean, arguments))
    if arguments.labelled:
        outcomes.append(_fit_siren(backbone, known, arguments))
    freeze(bundle, backbone, [outcome.calibrated for outcome in outcomes])
    for outcome in outcomes:
        print(_summary(outcome.calibrated))
        faults += outcome.faults
    print(f"wrote {arguments.bundle} (id {Bundle.load(arguments.bundle).id})")
    for fault in faults:
        print(f"layerguard calibrate: {fault}", file=sys.stderr)
    return 2 if faults else 0


def _fit_lcf(backbone: Backbone, rows: Sequence[Row], arguments: Namespace) -> _Outcome:
    found = collect(backbone, rows, REGISTRY["lcf"].tap, "clean rows")
    groups = [prompt_group(found.rows[row]) for row in found.owner]
    params = lcf.fit(found.states, arguments.mode, arguments.target_fpr, arguments.seed, groups)
    settings = {"folds": lcf.FOLDS} if arguments.mode == "cross-fit" else {}
    calibrated = Calibrated("lcf", arguments.mode, params, found.rows, arguments.seed, settings)
    return _Outcome(calibrated, found.faults)


def _fit_siren(backbone: Backbone, rows: Sequence[Row], arguments: Namespace) -> _Outcome:
    found = collect(backbone, rows, REGISTRY["siren"].tap, "labelled rows")
    groups = [prompt_group(found.rows[row]) for row in found.owner]
    trained = siren.train(
        found.states,
        labels_of(found.rows)[found.owner],
        groups,
        eta=arguments.eta,
        seed=arguments.seed,
        target_fpr=arguments.target_fpr,
    )
    calibrated = Calibrated(
        "siren", "cross-fit", trained.params, found.rows, arguments.seed, trained.settings
    )
    return _Outcome(calibrated, found.faults)


def _clean_rows(paths: Sequence[Path]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows of the files, and a sentence for each that is bad or not clean."""
    if not paths:
        return (), ()
    found = read_rows(paths)
    clean = tuple(row for row in found.good if row.label != 1)
    harmful = [
        f"{row.place}: found label 1 in --clean; expected clean rows. Harmful ones go to --labelled"
        for row in found.good
        if row.label == 1
    ]
    return clean, (*found.faults, *harmful)


def _without_leaks(rows: Sequence[Row], tests: TestTexts, option: str) -> tuple[Row, ...]:
    kept = tests.without(rows)
    if len(kept) < len(rows):
        print(f"dropped {len(rows) - len(kept)} of {len(rows)} rows of {option}: in --test")
    return kept


def _check_support(rows: Sequence[Row], target_fpr: float, *, asked: bool) -> None:
    """Refuse a target before the graph runs, not after.

    Raises:
        CalibrationError: there are too few different clean prompts for it.
    """
    if asked:
        conformal.rank(len({prompt_group(row) for row in rows}), target_fpr)


def _summary(item: Calibrated) -> str:
    low, high = (100 * bound for bound in item.params["fpr_interval"].tolist())
    prompts = len(item.params["clean_scores"])
    advice = f"; {_ROWS_ADVISED} or more are advised" if prompts < _ROWS_ADVISED else ""
    return (
        f"{item.name}: {item.method}, {len(item.rows)} rows, threshold "
        f"{float(item.params['threshold']):.4g} from {prompts} clean prompts{advice}\n"
        f"    target {100 * float(item.params['target_fpr']):g} % of clean traffic like this; "
        f"the realised share lies within {low:.2g} and {high:.2g} % (95 %)"
    )
