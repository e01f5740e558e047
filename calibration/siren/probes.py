"""SIREN's first stage: sparse probes that choose the neurons of each layer.

"LLM Safety From Within", arXiv 2604.18519, section "Method"; ``docs/detectors/siren.md``.
Here neurons are standardised, so that weights of different dimensions can be compared, and the
solver is exact (liblinear); the published solver stops after a number of epochs.

States are read one layer at a time. liblinear copies its input into two lists of 16 bytes a value,
so its training rows need most of the memory: 40 bytes x rows x hidden of one layer.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from layerguard.calibration.rows.source_folds import grouped_folds
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.runtime.types import Array

STRENGTHS = (50.0, 100.0, 200.0, 500.0, 1000.0)
"""Candidates for C of the published loss, mean log-loss + sum|w| / C: both published grids."""

LEAST_ALPHA = 0.1
"""Weight of the weakest layer, as published."""

_VALIDATION_FOLDS = 5
_RELATIVE_FLOOR = 1e-3
_COLUMNS, _ROWS = 256, 1024
"""Columns, or rows, of a layer that are converted to float64 at once."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The neurons and layer weights that the probes chose.

    Attributes:
        layers: state indices, 1..L.
        neurons: per layer, indices of the chosen neurons, largest probe weight first.
        alpha: float32 [L], the weight of each layer.
        f1: per layer, the probe's macro-F1 on validation rows.
        strengths: per layer, the chosen C.
    """

    layers: tuple[int, ...]
    neurons: tuple[Array, ...]
    alpha: Array
    f1: tuple[float, ...]
    strengths: tuple[float, ...]

    def features(self, states: Array | States, rows: Array | None = None) -> Array:
        """The network's inputs, concat_l alpha_l x_l[neurons_l], float32 [n, features].

        Args:
            states: states of all rows.
            rows: int64 [n], the rows to return; all by default.
        """
        states = as_states(states)
        rows = np.arange(states.shape[0]) if rows is None else rows
        values = np.empty((len(rows), sum(map(len, self.neurons))), np.float32)
        start = 0
        for layer, neurons, alpha in zip(self.layers, self.neurons, self.alpha, strict=True):
            stop = start + len(neurons)
            values[:, start:stop] = alpha * states.layer(layer)[np.ix_(rows, neurons)]
            start = stop
        return values


def select(
    states: Array | States,
    labels: Array,
    codes: Array,
    eta: float,
    seed: int,
    rows: Array | None = None,
    sources: Array | None = None,
) -> Selection:
    """Fit a probe for every layer and choose its neurons.

    Args:
        states: float32 [n, L + 1, hidden], means over tokens.
        labels: int [n], 1 is harmful.
        codes: int64 [n], group of each row; a group is not split into training and validation.
        eta: share of a probe's absolute weight that its chosen neurons hold, in (0, 1].
        seed: random seed of the validation rows and the solver.
        rows: int64, the rows to fit on; all by default.
        sources: int64 [n], source of each row; if there are enough, whole sources validate.
    """
    states = as_states(states)
    rows = np.arange(len(labels)) if rows is None else rows
    of_rows = None if sources is None else sources[rows]
    training, validation = grouped_folds(
        labels[rows], codes[rows], of_rows, _VALIDATION_FOLDS, seed
    )[0]
    layers = range(1, states.shape[1])
    split = rows[training], rows[validation]
    probes = [_probe(states.layer(layer), labels, split, seed) for layer in layers]
    f1 = [score for _, score, _ in probes]
    return Selection(
        layers=tuple(layers),
        neurons=tuple(select_neurons(weights, eta) for weights, _, _ in probes),
        alpha=layer_weights(f1).astype(np.float32),
        f1=tuple(f1),
        strengths=tuple(strength for _, _, strength in probes),
    )


def select_neurons(weights: Array, eta: float) -> Array:
    """Indices of the largest |weights| whose sum reaches the share ``eta``, int32.

    The order is descending, and by index for equal weights; it is the order of the features. The
    weight that reaches the share is included.
    """
    size = np.abs(np.asarray(weights, dtype=np.float64))
    order = np.argsort(-size, kind="stable")
    held = np.cumsum(size[order])
    return order[: int(np.searchsorted(held, eta * held[-1])) + 1].astype(np.int32)


def layer_weights(f1: Sequence[float] | Array) -> Array:
    """alpha_l = max(0.1, (F_l - min F) / (max F - min F)), float64; 0.1 if all F are equal."""
    score = np.asarray(f1, dtype=np.float64)
    spread = float(np.ptp(score)) or 1.0
    weights: Array = np.maximum(LEAST_ALPHA, (score - score.min()) / spread)
    return weights


def standardisation(x: Array, rows: Array | None = None) -> tuple[Array, Array]:
    """Mean and standard deviation of each column, float64, with a lower bound.

    The lower bound of a deviation is 1e-3 of the median deviation, or 1 if that is zero. A nearly
    constant column therefore stays small after division.

    Args:
        x: floats [n, columns]; copied some columns at a time.
        rows: int64, the rows to use; all by default.
    """
    width = x.shape[1]
    mean, deviation = np.empty(width), np.empty(width)
    for start in range(0, width, _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        some = x[:, columns] if rows is None else x[rows, columns]
        mean[columns] = some.mean(axis=0, dtype=np.float64)
        deviation[columns] = some.std(axis=0, dtype=np.float64)
    floor = _RELATIVE_FLOOR * float(np.median(deviation)) or 1.0
    return mean, np.maximum(deviation, floor)


def standardised(
    x: Array, rows: Array, mean: Array, deviation: Array, dtype: type[np.floating[Any]]
) -> Array:
    """(x - mean) / deviation of ``rows``, computed in float64, some rows at a time."""
    standard = np.empty((len(rows), x.shape[1]), dtype)
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        standard[some] = (x[rows[some]] - mean) / deviation
    return standard


def _probe(
    x: Array, labels: Array, rows: tuple[Array, Array], seed: int
) -> tuple[Array, float, float]:
    """Weights [hidden], validation macro-F1 and C of the best probe of a layer x [n, hidden].

    Ties go to the first candidate, which is the sparsest probe, as published.
    """
    training, validation = rows
    mean, deviation = standardisation(x, training)
    known, unseen = (standardised(x, part, mean, deviation, np.float64) for part in rows)
    del x  # the solver needs the memory
    best: tuple[Array, float, float] | None = None
    for strength in STRENGTHS:
        probe = LogisticRegression(
            l1_ratio=1.0,
            C=strength / len(training),
            solver="liblinear",
            tol=1e-3,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # sufficient to rank neurons
            probe.fit(known, labels[training])
        predicted = probe.predict(unseen)
        score = float(f1_score(labels[validation], predicted, average="macro", zero_division=0.0))
        if best is None or score > best[1]:
            best = probe.coef_[0], score, strength
    assert best is not None
    return best
