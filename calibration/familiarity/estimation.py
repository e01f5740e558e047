"""Fit the distance to the calibration rows, and compute held-out distances.

The covariance is that of probabilistic principal components: ``rank`` directions with variances of
their own, and one variance for all others, in elements divided by their standard deviations
(Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999). Layer and rank follow from
the numbers of layers and rows, so nothing is tuned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import svd

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.rows.folds import Groups, group_codes, group_maxima, random_folds
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds.threshold import conformal_threshold
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.types import Array

FOLDS = 5
MOST_DIRECTIONS = 32

_ROWS_A_DIRECTION = 10
"""Rows for each direction; fewer rows give fewer directions."""

_FLOOR = 0.01
"""Smallest standard deviation of an element, as a share of the median."""


def fit(
    states: Array | States,
    sources: Sequence[str | None] | None = None,
    groups: Groups = None,
    seed: int = 0,
    target_fpr: float = DEFAULT_TARGET_FPR,
) -> dict[str, Array]:
    """Fit centres and covariance to the states of clean texts, and set the threshold.

    The distance of a text with mean state x of the middle layer is

        score = sqrt(min_k (|z_k|^2 - sum_r (directions_r . z_k)^2)), z_k = (x - centres_k) / scale.

    Args:
        states: float32 [n, L + 1, hidden], the mean over tokens of each state.
        sources: source of each row; each has a centre of its own. None: one centre for all.
        groups: n labels; rows with equal labels stay in one fold. None: every row is a group.
        seed: random seed of the folds.
        target_fpr: share of clean texts that may be called unfamiliar, in (0, 1).

    Returns:
        The frozen arrays by name:

            - ``layer``: int32 [], the state that is read, L // 2.
            - ``centres``: float32 [K, hidden].
            - ``scale``: float32 [hidden].
            - ``directions``: float32 [R, hidden], R up to 32, one for each ten rows.
            - ``threshold``, ``target_fpr``, ``clean_scores``, ``fpr_interval``: as of ``lcf.fit``.

    Raises:
        CalibrationError: too few rows for the folds or the target, or states that are not finite.
        InputError: an argument has the wrong shape or is outside its range.

    Source: ``tests/reference/familiarity.py``.
    """
    states = as_states(states)
    fitted = train(states, sources, groups, seed)
    codes = group_codes(groups, states.shape[0])
    clean = group_maxima(fitted.held_out, codes)
    return {**fitted.params, **conformal_threshold(clean, target_fpr).arrays()}


def train(
    states: Array | States,
    sources: Sequence[str | None] | None = None,
    groups: Groups = None,
    seed: int = 0,
) -> FittedParameters:
    """The parameters and the held-out distance of every row; see ``fit``."""
    states = as_states(states)
    rows, layers, _ = states.shape
    layer = (layers - 1) // 2
    x = states.layer(layer).astype(np.float64)
    codes = group_codes(groups, rows)
    folds = min(FOLDS, int(codes.max()) + 1)
    if folds < 2:
        raise CalibrationError(
            f"familiarity found {folds} texts; expected at least 2: bring some hundred clean rows"
        )
    centre_of = group_codes(sources, rows) if sources else np.zeros(rows, np.int64)
    held_out, fold_of = np.empty(rows), random_folds(codes, folds, seed)
    with one_thread():
        for fold in range(folds):
            held = fold_of == fold
            held_out[held] = _Model.of(x[~held], centre_of[~held]).distances(x[held])
        model = _Model.of(x, centre_of)
    settings = {"layer": layer, "folds": folds, "directions": len(model.directions)}
    return FittedParameters(model.params(layer), held_out, settings)


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """Centres [K, hidden], scale [hidden] and directions [R, hidden], float64."""

    centres: Array
    scale: Array
    directions: Array

    @classmethod
    def of(cls, x: Array, centre_of: Array) -> "_Model":
        """Fit rows [n, hidden], each to the mean of its own centre."""
        used = np.unique(centre_of)
        centres = np.stack([x[centre_of == code].mean(axis=0) for code in used])
        moved = x - centres[np.searchsorted(used, centre_of)]
        deviation = moved.std(axis=0)
        deviation = np.maximum(deviation, _FLOOR * np.median(deviation) + np.finfo(np.float32).tiny)
        _, lengths, directions = svd(moved / deviation, full_matrices=False)
        variances = lengths**2 / len(x)
        rank = min(MOST_DIRECTIONS, len(x) // _ROWS_A_DIRECTION, len(lengths) - 1)
        beside = max(variances[rank:].sum() / (x.shape[1] - rank), np.finfo(np.float32).eps)
        weights = np.sqrt(np.maximum(1 - beside / variances[:rank], 0))
        return cls(centres, deviation * np.sqrt(beside), directions[:rank] * weights[:, None])

    def distances(self, x: Array) -> Array:
        """The distance of rows [n, hidden] to the nearest centre, float64 [n]."""
        squares = []
        for centre in self.centres:
            z = (x - centre) / self.scale
            squares.append((z**2).sum(axis=1) - ((z @ self.directions.T) ** 2).sum(axis=1))
        distances: Array = np.sqrt(np.maximum(np.min(squares, axis=0), 0))
        return distances

    def params(self, layer: int) -> dict[str, Array]:
        """The frozen arrays without a threshold."""
        return {
            "layer": np.array(layer, np.int32),
            "centres": self.centres.astype(np.float32),
            "scale": self.scale.astype(np.float32),
            "directions": self.directions.astype(np.float32),
        }
