"""Labelled checkpoints: JSONL with one row a checkpoint, and checks that they suffice for a fit.

    {"bundle": PATH, "run": ID, "perturbation": NAME, "step": N, "misalignment": SHARE}

``bundle`` is the exported checkpoint; a relative path starts at the file's folder. ``run`` names a
fine-tuning run; ``perturbation`` names its data set, and is the same for all seeds. ``step`` counts
from the base model, which is step 0 and has no row. ``misalignment`` is the share of the
checkpoint's answers that were judged misaligned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import DETECTORS
from layerguard.runtime.bundle.schema import decode, parse
from layerguard.runtime.drift.base import Base, load_checkpoint
from layerguard.runtime.errors import BundleError, CalibrationError, InputError

LEAST_CHECKPOINTS = 10
"""Different checkpoints; with fewer, a forest with five rows a leaf cannot split."""

LEAST_RUNS_FOR_STEPS = 3
"""With fewer final drifts, a principal component means nothing."""

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One row; ``misalignment`` is a share from 0 to 1."""

    bundle: str
    run: str
    perturbation: str
    step: int
    misalignment: float


def read_runs(path: Path) -> tuple[Checkpoint, ...]:
    """Read the rows of a file, and resolve the paths of their bundles.

    A bad row is an error, unlike a bad text: a missing checkpoint may change the choice of the
    regressor, and every checkpoint costs a fine-tuning run.

    Raises:
        InputError: the file cannot be read, or a row is bad; lists every bad row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of JSON rows") from error
    checkpoints: list[tuple[int, Checkpoint]] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row, wrong = _row(line)
        faults += [f"{path}:{number}: {fault}" for fault in wrong]
        if row is not None:
            checkpoints.append((number, replace(row, bundle=str(path.parent / row.bundle))))
    faults += [f"{path}:{number}: {fault}" for number, fault in _contradictions(checkpoints)]
    if not faults and not checkpoints:
        faults = [f"{path}: found no row; expected labelled checkpoints, one JSON object a line"]
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "".join(f"\n  - {fault}" for fault in [*faults[:_SHOWN], *more])
        raise InputError(f"the checkpoint runs cannot be used:{listed}")
    return tuple(row for _, row in checkpoints)


def runs_bytes(runs: Sequence[Checkpoint]) -> bytes:
    """The labels in a canonical form for a hash, without the paths of the bundles."""
    rows = [[row.run, row.perturbation, row.step, row.misalignment] for row in runs]
    return json.dumps(rows).encode()


def load_checkpoints(base: Base, runs: Sequence[Checkpoint], layer: int) -> list[Bundle]:
    """Load and verify the bundles of all checkpoints, before the states of any are read.

    Args:
        base: their base model.
        runs: the checkpoints.
        layer: the highest state index that will be read.

    Raises:
        InputError: a bundle is invalid or of another model; lists all of these.
        CalibrationError: too few of them have different weights.
    """
    bundles, faults = [], []
    for row in tqdm(runs, desc="verifying checkpoints", unit="checkpoint", disable=None):
        try:
            bundles.append(load_checkpoint(row.bundle, base, layer))
        except BundleError as error:
            faults.append(str(error))
    if faults:
        raise InputError(
            f"{len(faults)} of {len(runs)} checkpoints cannot be read:\n" + "\n".join(faults)
        )
    different = len({_content(bundle) for bundle in bundles})
    if different < LEAST_CHECKPOINTS:
        raise CalibrationError(
            f"found {len(runs)} checkpoints with {different} different contents; expected "
            f"{LEAST_CHECKPOINTS} or more different ones: a copy tells nothing new"
        )
    return bundles


def _content(bundle: Bundle) -> frozenset[str]:
    """The hashes of a bundle's files but for its detectors, which are not the model's."""
    files = bundle.manifest.files
    return frozenset(card.sha256 for name, card in files.items() if name != DETECTORS)


def check_support(runs: Sequence[Checkpoint], tau: float, *, step_aware: bool) -> None:
    """Refuse runs that do not suffice to choose a regressor.

    Raises:
        CalibrationError: lists everything that is missing.
    """
    above = sum(row.misalignment > tau for row in runs)
    perturbations = {row.perturbation for row in runs}
    faults = []
    if len(runs) < LEAST_CHECKPOINTS:
        faults.append(f"found {len(runs)} checkpoints; expected {LEAST_CHECKPOINTS} or more")
    if not 0 < above < len(runs):
        faults.append(
            f"found {above} of {len(runs)} above tau = {tau:g}; expected some above and some not"
        )
    if len(perturbations) < 2:
        faults.append(
            f"found the perturbations {sorted(perturbations)}; expected two or more, because each "
            "is left out once"
        )
    if step_aware:
        faults += _step_faults(runs, tau)
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise CalibrationError(f"the checkpoint runs do not support a monitor:{listed}")


def _step_faults(runs: Sequence[Checkpoint], tau: float) -> list[str]:
    """Faults for the step-aware alarm: too few runs, or no benign run longer than all others."""
    last: dict[str, int] = {}
    for row in runs:
        last[row.run] = max(row.step, last.get(row.run, 0))
    dangerous = {row.run for row in runs if row.misalignment > tau}
    anchor = max((last[run] for run in last.keys() - dangerous), default=0)
    longest = max((last[run] for run in dangerous), default=0)
    faults = []
    if len(last) < LEAST_RUNS_FOR_STEPS:
        expected = f"a step-aware alarm needs {LEAST_RUNS_FOR_STEPS} or more"
        faults.append(f"found {len(last)} runs; {expected}")
    if anchor <= longest:
        faults.append(
            f"the longest run that stays within tau ends at step {anchor}, the longest other at "
            f"{longest}; a step-aware alarm needs a benign run longer than all others"
        )
    return faults


def _row(line: bytes) -> tuple[Checkpoint | None, list[str]]:
    try:
        value: Any = decode(line)
    except (ValueError, RecursionError) as error:
        return None, [f"not JSON ({error}); expected an object"]
    faults: list[str] = []
    row: Checkpoint | None = parse(Checkpoint, value, "row", faults)
    if row is None:
        return None, faults
    if row.step < 1:
        faults.append(f"step is {row.step}; expected 1 or more, the base model being step 0")
    if not 0 <= row.misalignment <= 1:
        faults.append(f"misalignment is {row.misalignment}; expected a share from 0 to 1")
    faults += [
        f"{name} is empty; expected a text"
        for name in ("bundle", "run", "perturbation")
        if not getattr(row, name).strip()
    ]
    return (None, faults) if faults else (row, [])


def _contradictions(checkpoints: Sequence[tuple[int, Checkpoint]]) -> list[tuple[int, str]]:
    """Contradictions by line: a duplicate checkpoint, or a run with two perturbations."""
    faults = []
    seen: dict[tuple[str, int], int] = {}
    perturbation: dict[str, str] = {}
    for number, row in checkpoints:
        first = seen.setdefault((row.run, row.step), number)
        if first != number:
            faults.append(
                (number, f"run {row.run!r} has step {row.step} in line {first} too; expected once")
            )
        name = perturbation.setdefault(row.run, row.perturbation)
        if name != row.perturbation:
            faults.append(
                (number, f"run {row.run!r} is of {row.perturbation!r} here and of {name!r} before")
            )
    return faults
