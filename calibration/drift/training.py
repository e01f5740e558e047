"""The parameters of a drift monitor, from states and labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.defaults import PUBLISHED_TAU
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


@dataclass(frozen=True, slots=True)
class MonitorParameters:
    """Frozen parameters, the chosen regressor, and the held-out metrics of all candidates."""

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
    """Fit a drift monitor to the states of a base model and of its labelled checkpoints.

    A regressor predicts the share of misaligned answers from the drift along trait directions v_t:

        drift_t = (mean <h, v_t> - mean <h_base, v_t>) / mean ||h_base||.

    Args:
        positive: for each trait, floats [system prompts, questions, hidden]: the states of one
            layer at the last prompt token under the system prompts of the positive pole.
        negative: the same under the system prompts of the negative pole.
        base: floats [prompts, hidden], the base model's states on the evaluation prompts.
        checkpoints: for each of ``runs``, in the same order, floats [prompts, hidden], the
            checkpoint's states on the evaluation prompts; read one at a time.
        runs: run, perturbation, step and measured misalignment (0 to 1) of each of n checkpoints.
        tau: threshold on predicted misalignment, a share in (0, 1); the alarm is raised above it.
        step_aware: also fit the alarm for long runs.

    Returns:
        The frozen arrays by name:

            - ``directions``: float32 [traits, hidden], unit rows.
            - ``base_projection``: float64 [traits], in the unit of the states.
            - ``base_norm``: float64, mean length of the base model's states.
            - ``threshold``: float64, tau.
            - ``calibration_drift``: float64 [n, traits], no unit.
            - ``calibration_rates``: float64 [n], the measured misalignment.
            - ``intercept``, ``coefficients``: float64 [] and [traits], of a linear regressor.
            - ``tree_roots``: int32 [trees], root nodes of a forest.
            - ``tree_feature``, ``tree_left``, ``tree_right``: int32 [nodes].
            - ``tree_threshold``, ``tree_value``: float64 [nodes].
            - ``step_component``: float64 [traits]; the step arrays only with ``step_aware``.
            - ``step_mean``, ``step_scale``, ``step_coefficients``: float64 [3].
            - ``step_intercept``: float64.

    Raises:
        CalibrationError: states are not finite, the poles of a trait do not differ, the runs do
            not suffice for a regressor, or no regressor is better than chance.
        InputError: an argument has the wrong shape or an invalid value.

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
) -> MonitorParameters:
    """As ``fit``; also returns the chosen regressor and the metrics of all regressors."""
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
        validated = leave_one_perturbation_out(moved, runs, tau)
        chosen, model = fit_best(moved, runs, validated)
        step_params = fit_step_aware(moved, runs, tau) if step_aware else {}
    params = {
        "directions": directions,
        "base_projection": origin,
        "base_norm": np.array(norm),
        "threshold": np.array(float(tau)),
        "calibration_drift": moved,
        "calibration_rates": np.array([checkpoint.misalignment for checkpoint in runs]),
        **freeze_regressor(model, directions.shape[0]),
        **step_params,
    }
    return MonitorParameters(params, chosen, tuple(one.candidate for one in validated))


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
