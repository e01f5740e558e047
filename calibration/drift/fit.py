"""The parameters of a drift monitor, from states and labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.drift.directions import direction
from layerguard.calibration.drift.regressors import freeze_regressor
from layerguard.calibration.drift.runs import Checkpoint, check_support
from layerguard.calibration.drift.step_aware import fit_step_aware
from layerguard.calibration.drift.validation import fit_best, leave_one_perturbation_out
from layerguard.calibration.threads import one_thread
from layerguard.runtime.drift.manifest import Candidate, RegressorName
from layerguard.runtime.drift.projection import drift, mean_norm, project
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

PUBLISHED_TAU = 0.05
"""Limit on the share of misaligned answers, arXiv 2606.07631 version 1; version 2 takes 0.06."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Frozen parameters, the regressor that was chosen, and what all of them did held out."""

    params: dict[str, Array]
    regressor: RegressorName
    candidates: tuple[Candidate, ...]


def fit(
    positive: Sequence[Array] | Array,
    negative: Sequence[Array] | Array,
    base: Array,
    checkpoints: Iterable[Array],
    runs: Sequence[Checkpoint],
    *,
    tau: float = PUBLISHED_TAU,
    step_aware: bool = False,
) -> dict[str, Array]:
    """The frozen parameters of a drift monitor.

    Args:
        positive: for each trait, float [system prompts, questions, hidden]: the states of one
            layer at the last prompt token under the system prompts of the trait's positive pole.
        negative: the same of its negative pole.
        base: float [prompts, hidden], the base model's states on the evaluation prompts.
        checkpoints: for each of ``runs``, in order, the same of a checkpoint; read one by one.
        runs: what is known of the checkpoints.
        tau: limit on predicted misalignment, in (0, 1); the alarm is raised above it.
        step_aware: also fit the alarm for long runs.

    Returns:
        directions float32 [traits, hidden], unit rows; base_projection float64 [traits];
        base_norm float64; threshold float64, tau; the regressor that was chosen by
        leave-one-perturbation-out (see ``runtime/drift/regressor.py``); calibration_drift float64
        [n, traits] and calibration_rates float64 [n]; with ``step_aware`` the arrays of
        ``runtime/drift/step_aware.py``.

    Raises:
        CalibrationError: states are not finite, the poles of a trait do not differ, or the runs
            cannot support a regressor.
        InputError: an argument is of the wrong shape, or not one of its values.

    Source: arXiv 2606.07631, phases 1 and 2 and the detector; ``tests/reference/drift.py``.
    """
    return train(positive, negative, base, checkpoints, runs, tau=tau, step_aware=step_aware).params


def train(
    positive: Sequence[Array] | Array,
    negative: Sequence[Array] | Array,
    base: Array,
    checkpoints: Iterable[Array],
    runs: Sequence[Checkpoint],
    *,
    tau: float = PUBLISHED_TAU,
    step_aware: bool = False,
) -> Trained:
    """``fit``, with what was learnt on the way; same arguments and errors."""
    if not 0 < tau < 1:
        raise InputError(f"tau: found {tau}; expected a share between 0 and 1, such as 0.05")
    check_support(runs, tau, step_aware=step_aware)
    if len(positive) != len(negative) or not len(positive):
        raise InputError(
            f"found {len(positive)} positive and {len(negative)} negative sets of states; expected "
            "one of each for every trait"
        )
    poles = enumerate(zip(positive, negative, strict=True))
    directions = np.stack([direction(p, n, f"trait {trait}") for trait, (p, n) in poles])
    base = _checked(base, directions.shape[1], "base")
    origin, norm = project(base, directions), mean_norm(base)
    projections = []
    for checkpoint, states in zip(runs, checkpoints, strict=True):
        name = f"run {checkpoint.run!r}, step {checkpoint.step}"
        projections.append(project(_checked(states, directions.shape[1], name), directions))
    moved = drift(np.stack(projections), origin, norm)
    with one_thread():
        candidates = leave_one_perturbation_out(moved, runs, tau)
        chosen, model = fit_best(moved, runs, candidates)
        of_steps = fit_step_aware(moved, runs, tau) if step_aware else {}
    params = {
        "directions": directions,
        "base_projection": origin,
        "base_norm": np.array(norm),
        "threshold": np.array(float(tau)),
        "calibration_drift": moved,
        "calibration_rates": np.array([checkpoint.misalignment for checkpoint in runs]),
        **freeze_regressor(model, directions.shape[0]),
        **of_steps,
    }
    return Trained(params, chosen, candidates)


def _checked(states: Array, width: int, name: str) -> Array:
    states = np.asarray(states)
    if states.ndim != 2 or states.shape[1] != width or not len(states):
        raise InputError(
            f"{name}: found states {list(states.shape)}; expected [prompts, {width}], one row for "
            "each evaluation prompt"
        )
    if not np.isfinite(states).all():
        raise CalibrationError(
            f"{name}: its states are not finite; expected finite numbers. Export the model in "
            "float32 if float16 overflows, or leave that checkpoint out"
        )
    return states
