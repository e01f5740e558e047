"""TF-IDF of words and word pairs with logistic regression; the job has the training rows.

The threshold is conformal: 1 % of held-out clean rows of five folds.
"""

from typing import Any

import numpy as np
from answering import Ask, answer

from layerguard.calibration.evaluation.baselines import WordBaseline
from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.calibration.thresholds import conformal

_FOLDS, _SEED = 5, 0


def load(job: dict[str, Any]) -> Ask:
    """The baseline, fitted to the rows of the job."""
    texts, labels = np.array(job["training"], dtype=object), np.array(job["labels"])
    codes = np.arange(len(texts))
    held_out = np.empty(len(texts))
    for known, held in stratified_folds(labels, codes, _FOLDS, _SEED):
        fitted = WordBaseline(texts[known], labels[known], np.arange(len(known)), _SEED)
        held_out[held] = fitted.score(texts[held])
    threshold = conformal.threshold(held_out[labels == 0], job["target"])
    baseline = WordBaseline(texts, labels, codes, _SEED)

    def ask(text: str) -> tuple[float, bool]:
        (score,) = baseline.score([text])
        return float(score), bool(score > threshold)

    return ask


answer(load)
