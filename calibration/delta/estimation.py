"""Calibrate delta: centre and scale of what each changed matrix adds to clean prompts.

For each matrix that tuning changed, the graph gives the largest ln |dW x| over a prompt's tokens,
where dW is the change of the matrix and x its input. The score is the largest deviation from the
median of clean prompts. The scale of a matrix is its deviation plus the typical deviation of all
matrices, so that one that hardly varies raises no alarm alone. This is the project's own rule. The
threshold is conformal, from held-out scores.
"""

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
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import conformal_threshold
from layerguard.runtime.bundle.manifest import ADDED_KINDS
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array

Mode = Literal["cross-fit", "by-source"]

FOLDS = 20
"""Folds of cross-fitting: a fit on 95 % of the rows is close to the fit on all of them."""

LEAST_PROMPTS = 10
"""Fewest groups of rows that can be fitted."""

LEAST_SCALE = 1e-3
"""Smallest scale, a change of |dW x| by 0.1 %: far above the rounding error of a logarithm."""


def fit(
    values: Array | States,
    layers: Array,
    parts: Array,
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
) -> dict[str, Array]:
    """Fit delta to what tuning adds to clean prompts, and set its threshold.

    The score of a prompt has no unit:

        score = max over matrices k of (values_k - centre_k) / scale_k.

    Args:
        values: float32 [n, K], the largest ln |dW x| over the tokens of each of n rows, for each of
            K matrices; or ``States`` [n, 1, K] of the same values.
        layers: int [K], the block of each matrix, counted from 1.
        parts: int [K], which matrix of the block: 0 feed-forward output, 1 attention output. The
            pairs of block and part ascend.
        mode: scores that set the threshold. ``cross-fit``: held out in 20 folds.
            ``by-source``: held out one source at a time.
        target_fpr: share of clean prompts that may be flagged, in (0, 1).
        seed: random seed of the folds; only ``cross-fit`` uses it.
        groups: n labels; rows with equal labels (windows of one text, paraphrases) are held out
            together and count as one prompt with its largest score. None: every row is a group.
        sources: n labels of where the rows come from; only ``by-source`` uses them.

    Returns:
        The frozen arrays by name:

            - ``layers``, ``parts``: int32 [K] and uint8 [K], as given.
            - ``centre``: float32 [K], median over rows.
            - ``scale``: float32 [K], the unit of the score.
            - ``threshold``: float64; a score above it is flagged.
            - ``target_fpr``: float64, as given.
            - ``clean_scores``: float64 [prompts], ascending, the held-out scores.
            - ``fpr_interval``: float64 [2], 95 % interval of the realised false-positive rate.

    Raises:
        CalibrationError: fewer than 10 prompts or too few for the target, values that are not
            finite, or rows that are all equal; for ``by-source`` fewer than 3 sources.
        InputError: an argument has the wrong shape or an invalid value.

    Source: ``tests/reference/delta.py``.
    """
    prompts = _Prompts.checked(values, layers, parts, mode, target_fpr, groups)
    conformal.rank(prompts.count, target_fpr)  # refuses before the work
    fitted = _estimate(prompts, mode, seed, sources)
    clean = group_maxima(fitted.held_out, prompts.codes)
    return {**fitted.params, **conformal_threshold(clean, target_fpr).arrays()}


def train(
    values: Array | States,
    layers: Array,
    parts: Array,
    mode: Mode = "cross-fit",
    target_fpr: float = DEFAULT_TARGET_FPR,
    seed: int = 0,
    groups: Groups = None,
    sources: Groups = None,
) -> FittedParameters:
    """Return parameters and held-out scores; see ``fit`` for the arguments and errors."""
    prompts = _Prompts.checked(values, layers, parts, mode, target_fpr, groups)
    return _estimate(prompts, mode, seed, sources)


@dataclass(frozen=True, slots=True, eq=False)
class _Prompts:
    """Validated values of clean prompts.

    Attributes:
        values: float64 [n, K].
        places: ``layers`` int32 [K] and ``parts`` uint8 [K].
        codes: int64 [n], the group of each row.
        count: number of groups.
    """

    values: Array
    places: dict[str, Array]
    codes: Array
    count: int

    @classmethod
    def checked(
        cls,
        values: Array | States,
        layers: Array,
        parts: Array,
        mode: Mode,
        target_fpr: float,
        groups: Groups,
    ) -> "_Prompts":
        if mode not in get_args(Mode):
            raise InputError(f"mode: found {mode!r}; expected one of {', '.join(get_args(Mode))}")
        conformal.exact(target_fpr)
        places = _places(layers, parts)
        rows = _rows(values, len(places["layers"]))
        codes = group_codes(groups, len(rows))
        count = len(np.unique(codes))
        if count < LEAST_PROMPTS:
            raise CalibrationError(
                f"delta found {count} clean prompts; expected at least {LEAST_PROMPTS}, and 200 "
                "for a reliable threshold"
            )
        return cls(rows, places, codes, count)


def _estimate(prompts: _Prompts, mode: Mode, seed: int, sources: Groups) -> FittedParameters:
    if mode == "by-source":
        folds = one_fold_per_source(prompts.codes, sources, LEAST_PROMPTS)
        held_out_in = {"sources": int(folds.max()) + 1}
    else:
        folds = random_folds(prompts.codes, min(FOLDS, prompts.count), seed)
        held_out_in = {"folds": FOLDS}
    held_out = np.empty(len(folds))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        held_out[held] = _Normal.of(prompts.values[~held]).scores(prompts.values[held])
    whole = _Normal.of(prompts.values)
    params = {**prompts.places, "centre": whole.centre, "scale": whole.scale}
    settings = {"matrices": len(whole.centre), **held_out_in}
    return FittedParameters(params, held_out, settings)


@dataclass(frozen=True, slots=True, eq=False)
class _Normal:
    """What normal prompts give for each matrix.

    Attributes:
        centre: float32 [K], median over rows.
        scale: float32 [K], deviation over rows plus its median over matrices.
    """

    centre: Array
    scale: Array

    @classmethod
    def of(cls, values: Array) -> "_Normal":
        """Fit rows, float64 [n, K].

        Raises:
            CalibrationError: all rows are equal.
        """
        spread = values.std(axis=0)
        if not np.ptp(values, axis=0).any():
            raise CalibrationError(
                f"found the same values in all {len(values)} rows; expected texts that differ"
            )
        scale = np.maximum(spread + np.median(spread), LEAST_SCALE)
        return cls(np.median(values, axis=0).astype(np.float32), scale.astype(np.float32))

    def scores(self, values: Array) -> Array:
        """The score of each row, float64 [n], with the arithmetic of serving."""
        scores: Array = ((values - self.centre) / self.scale).max(axis=1)
        return scores


def _places(layers: Array, parts: Array) -> dict[str, Array]:
    """Block and part of each matrix, in the types of the bundle.

    Raises:
        InputError: there are none, they are out of range, or not in order.
    """
    pairs = list(zip(np.asarray(layers).tolist(), np.asarray(parts).tolist(), strict=False))
    ordered = pairs == sorted(set(pairs)) and len(layers) == len(parts) > 0
    if not ordered or not all(layer >= 1 and 0 <= part < len(ADDED_KINDS) for layer, part in pairs):
        raise InputError(
            f"layers and parts: found {len(layers)} and {len(parts)}, beginning with {pairs[:3]}; "
            f"expected one pair for each matrix, ascending, of a block from 1 on and a part below "
            f"{len(ADDED_KINDS)}"
        )
    return {"layers": np.asarray(layers, np.int32), "parts": np.asarray(parts, np.uint8)}


def _rows(values: Array | States, matrices: int) -> Array:
    """The values as float64 [n, K]; at most 2 L numbers a row, so all are read at once.

    Raises:
        CalibrationError: a value is not finite; the message names the first such row.
        InputError: the shape or dtype is wrong.
    """
    if isinstance(values, States):
        values = values.layer(0)
    values = np.asarray(values)
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != matrices:
        raise InputError(
            f"values: found {values.dtype} {list(values.shape)}; expected float32 [n, {matrices}], "
            "one value for each matrix"
        )
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise CalibrationError(
            f"values: row {broken[0]} is not finite ({len(broken)} such rows of {len(values)}); "
            "expected finite numbers. Leave those rows out, or export the model in float32"
        )
    return values.astype(np.float64)
