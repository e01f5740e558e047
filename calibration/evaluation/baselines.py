"""Baselines to compare detectors with: word statistics, and the best probe of a single layer.

Cross-validation on training rows tunes both.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.runtime.types import Array

_FOLDS = 5
_WORD_STRENGTHS = (1.0, 10.0, 100.0)
_PROBE_STRENGTHS = (0.001, 0.01, 0.1)


class WordBaseline:
    """TF-IDF of words and word pairs, logistic regression."""

    def __init__(self, texts: Sequence[str], labels: Array, codes: Array, seed: int) -> None:
        """Fit on the training texts; the inverse penalty is chosen by cross-validation.

        Args:
            texts: n training texts.
            labels: int [n], 1 is harmful.
            codes: int64 [n], group of each row; a group stays in one fold.
            seed: random seed of the folds.
        """
        folds = stratified_folds(labels, codes, _FOLDS, seed)
        column = np.asarray(texts, dtype=object)
        candidates = [
            make_pipeline(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, dtype=np.float32),
                LogisticRegression(C=strength, max_iter=1000),
            )
            for strength in _WORD_STRENGTHS
        ]
        scores = [_held_out_f1(model, column, labels, folds) for model in candidates]
        self._model = candidates[int(np.argmax(scores))].fit(column, labels)

    def score(self, texts: Sequence[str]) -> Array:
        """The probability of harm, float64 [n]."""
        probability: Array = self._model.predict_proba(np.asarray(texts, dtype=object))[:, 1]
        return probability.astype(np.float64)


class LayerProbe:
    """Logistic regression on the mean state of the layer with the best validation score.

    Attributes:
        layer: its state index, 1..L.
    """

    def __init__(self, states: Array | States, labels: Array, codes: Array, seed: int) -> None:
        """Fit on training states; layer and inverse penalty are chosen by cross-validation.

        Args:
            states: float32 [n, L + 1, hidden], means over tokens.
            labels: int [n], 1 is harmful.
            codes: int64 [n], group of each row; a group stays in one fold.
            seed: random seed of the folds.
        """
        folds = stratified_folds(labels, codes, _FOLDS, seed)
        states = as_states(states)
        best = -1.0
        for layer in range(1, states.shape[1]):
            layer_states = states.layer(layer)
            for strength in _PROBE_STRENGTHS:
                model = make_pipeline(
                    StandardScaler(), LogisticRegression(C=strength, max_iter=1000)
                )
                score = _held_out_f1(model, layer_states, labels, folds)
                if score > best:
                    best, self.layer, self._model = score, layer, model
        self._model.fit(states.layer(self.layer), labels)

    def score(self, states: Array) -> Array:
        """The probability of harm, float64 [n], from the chosen layer, float32 [n, hidden]."""
        probability: Array = self._model.predict_proba(states)[:, 1]
        return probability.astype(np.float64)


def _held_out_f1(
    model: BaseEstimator, inputs: Array, labels: Array, folds: list[tuple[Array, Array]]
) -> float:
    predicted = cross_val_predict(model, inputs, labels, cv=folds)
    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
