"""Calibrate LCF: statistics of the layer differences of clean prompts, and a threshold.

Layerwise Convergence Fingerprints, arXiv 2604.24542; ``docs/detectors/lcf.md``. All modes estimate
the published parameters. They differ in the scores from which the threshold is taken.

The published leave-one-out keeps a row in the statistics that standardise it. Its scores are
therefore too small: a nominal 10 % becomes 11-17 %, and up to 48 % where the hidden width far
exceeds the number of prompts. ``loo``, ``cross-fit`` and ``by-source`` refit all parameters without
the row's group, fold or source and take a conformal quantile. With ``by-source`` the scores are
those of texts of a source that the parameters have not seen, and so is the promised rate.

Also tried: S of held-out rows for m, s and P as well, not only for the threshold. This removes the
shift between new and in-sample rows, which is part of the signal: AUROC fell from 0.694 to 0.684
(MiniLM, ToxicChat against Alpaca) and from 0.71 to 0.63 (simulated, width 4096, 200 rows). The
realised false-positive rate did not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.lcf.held_out import FoldMoments, scores_and_lengths
from layerguard.calibration.lcf.statistics import (
    ABSOLUTE_FLOOR,
    Aggregate,
    Frozen,
    aggregate,
    lengths,
    mahalanobis,
    precision,
)
from layerguard.calibration.rows.folds import (
    Groups,
    group_codes,
    group_maxima,
    one_fold_per_source,
    random_folds,
)
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.calibration.states.moments import Moments
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import conformal_threshold, published_threshold
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

Mode = Literal["cross-fit", "by-source", "loo", "reference"]

FOLDS = 20
"""Folds of cross-fitting: a fit on 95 % of the rows is close to the fit on all of them."""

RELATIVE_FLOOR = 1e-3
"""Least standard deviation of a dimension, as a share of its layer's median. Without it, a change
of 1e-7 in a dimension that is constant over the clean prompts would raise an alarm. ``reference``
does not use it."""

LEAST_PROMPTS = 10
"""Fewest groups of rows that can be fitted."""


def fit(
    states: Array | States,
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
) -> dict[str, Array]:
    """Fit LCF to the hidden states of clean prompts, and set its threshold.

    The score has no unit and is at least 0; with D_l = h_{l+1} - h_l of one row it is

        S_l = ||(D_l - mu_l) / sigma_l||,  z = (S - score_mean) / score_scale,
        score = sqrt((z - centre)' precision (z - centre)).

    Args:
        states: float32 [n, L + 1, hidden], the hidden states of each of n rows at its last token:
            an array, which may be an ``np.memmap``, or ``States``, which are read in blocks.
        mode: scores that set the threshold. ``cross-fit``: held out in 20 folds.
            ``by-source``: held out one source at a time. ``loo``: held out one group at a time.
            ``reference``: the published rule, the larger of 1 and the percentile
            100 (1 - target_fpr) of pseudo-leave-one-out scores.
        target_fpr: share of clean prompts that may be flagged, in (0, 1).
        seed: random seed of the folds; only ``cross-fit`` uses it.
        groups: n labels; rows with equal labels (windows of one text, paraphrases) are held out
            together and count as one prompt with its largest score. None: every row is a group.
            ``reference`` only counts the groups.
        sources: n labels of where the rows come from; only ``by-source`` uses them.

    Returns:
        The frozen arrays by name:

            - ``mu``, ``sigma``: float32 [L, hidden], mean and standard deviation of D.
            - ``score_mean``, ``score_scale``: float64 [L], mean and standard deviation of S.
            - ``centre``: float64 [L], mean of z.
            - ``precision``: float64 [L, L], inverse of the Ledoit-Wolf covariance of z.
            - ``threshold``: float64; a score above it is flagged.
            - ``target_fpr``: float64, as given.
            - ``clean_scores``: float64 [prompts], ascending, the scores that set the threshold.
            - ``fpr_interval``: float64 [2], 95 % interval of the realised false-positive rate; [0,
              1] for ``reference``, which promises no rate.

    Raises:
        CalibrationError: fewer than 10 prompts or too few for the target, states that are not
            finite, or prompts that are all equal; for ``by-source`` fewer than 3 sources.
        InputError: an argument has the wrong shape or an invalid value.

    Source: arXiv 2604.24542, section "Method"; ``tests/reference/lcf.py``.
    """
    prompts = _Prompts.checked(states, mode, target_fpr, groups)
    if mode != "reference":
        conformal.rank(prompts.count, target_fpr)  # refuses before the work
    fitted = _estimate(prompts, mode, target_fpr, seed, sources)
    threshold = fitted.published or conformal_threshold(
        group_maxima(fitted.held_out, prompts.codes), target_fpr
    )
    return {**fitted.params, **threshold.arrays()}


def train(
    states: Array | States,
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
) -> FittedParameters:
    """Return parameters and held-out scores; see ``fit`` for the arguments and errors.

    Only ``reference`` returns a threshold, the published one, and uses ``target_fpr``. Its held-out
    scores are the published pseudo-leave-one-out scores.
    """
    prompts = _Prompts.checked(states, mode, target_fpr, groups)
    return _estimate(prompts, mode, target_fpr, seed, sources)


@dataclass(frozen=True, slots=True, eq=False)
class _Prompts:
    """Validated states of clean prompts, their group codes int64 [n], and the number of groups."""

    states: States
    codes: Array
    count: int

    @classmethod
    def checked(
        cls, states: Array | States, mode: Mode, target_fpr: float, groups: Groups
    ) -> "_Prompts":
        if mode not in get_args(Mode):
            raise InputError(f"mode: found {mode!r}; expected one of {', '.join(get_args(Mode))}")
        conformal.exact(target_fpr)
        states = as_states(states)
        codes = group_codes(groups, states.shape[0])
        count = len(np.unique(codes))
        if count < LEAST_PROMPTS:
            raise CalibrationError(
                f"LCF found {count} clean prompts; expected at least {LEAST_PROMPTS}, and 200 for "
                "a reliable threshold"
            )
        return cls(states, codes, count)


def _estimate(
    prompts: _Prompts, mode: Mode, target_fpr: float, seed: int, sources: Groups
) -> FittedParameters:
    with one_thread():
        if mode == "reference":
            return _as_published(prompts.states, target_fpr)
        if mode == "loo":
            return _held_out(prompts.states, prompts.codes, {})
        if mode == "by-source":
            folds = one_fold_per_source(prompts.codes, sources, LEAST_PROMPTS)
            return _held_out(prompts.states, folds, {"sources": int(folds.max()) + 1})
        folds = random_folds(prompts.codes, min(FOLDS, prompts.count), seed)
        return _held_out(prompts.states, folds, {"folds": FOLDS})


def _as_published(states: States, target_fpr: float) -> FittedParameters:
    """Fit by the published rule, with the published threshold."""
    moments = FoldMoments.read(states, np.zeros(states.shape[0], np.int64))
    frozen = _frozen(moments.total, relative_floor=0.0)
    in_sample = lengths(states, [frozen])[0][:, 0]
    all_layers = aggregate(in_sample)
    scores = _published_scores(all_layers.z(in_sample))
    ascending = np.sort(scores)
    value = max(float(np.percentile(ascending, 100 * (1 - target_fpr))), 1.0)
    threshold = published_threshold(value, ascending, target_fpr)
    return FittedParameters(_parameters(frozen, all_layers), scores, {}, threshold)


def _held_out(states: States, folds: Array, settings: dict[str, Any]) -> FittedParameters:
    """Fit all rows, and score each row with parameters that were fitted without its fold."""
    moments = FoldMoments.read(states, folds)
    frozen = _frozen(moments.total, RELATIVE_FLOOR)
    held_out, (in_sample,) = scores_and_lengths(states, moments, _floored, [frozen])
    params = _parameters(frozen, aggregate(in_sample[:, 0]))
    return FittedParameters(params, held_out, settings)


def _frozen(total: Sequence[Moments], relative_floor: float) -> Frozen:
    """Mean and standard deviation of every layer, as the bundle stores them."""
    for layer, layer_moments in enumerate(total):
        if not layer_moments.squares.any():
            raise CalibrationError(
                f"LCF found the same difference of states {layer} and {layer + 1} in all "
                f"{int(layer_moments.count)} clean prompts; expected prompts that differ"
            )
    sigma = [_floored(layer_moments.deviation, relative_floor) for layer_moments in total]
    return Frozen(
        np.stack([layer_moments.mean for layer_moments in total]).astype(np.float32),
        np.stack(sigma).astype(np.float32),
    )


def _parameters(frozen: Frozen, all_layers: Aggregate) -> dict[str, Array]:
    return {
        "mu": frozen.mu,
        "sigma": frozen.sigma,
        "score_mean": all_layers.mean,
        "score_scale": all_layers.scale,
        "centre": all_layers.centre,
        "precision": all_layers.precision,
    }


def _floored(deviation: Array, relative: float = RELATIVE_FLOOR) -> Array:
    """Standard deviations [..., hidden], at least a small share of their layer's median."""
    typical = np.median(deviation, axis=-1, keepdims=True)
    floored: Array = np.maximum(deviation, np.maximum(relative * typical, ABSOLUTE_FLOOR))
    return floored


def _published_scores(z: Array) -> Array:
    """Published pseudo-leave-one-out scores: only centre and precision are refitted."""
    scores = np.empty(len(z))
    for row in range(len(z)):
        rest = np.delete(z, row, axis=0)
        scores[row] = mahalanobis(z[row : row + 1], rest.mean(axis=0), precision(rest))[0]
    return scores
