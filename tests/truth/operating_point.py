"""Recall and false alarms of scores on sources that were left out, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from layerguard.runtime.types import Array

RATES = (0.01, 0.05)
RESAMPLES = 1000


def recall_at_rate(clean: Array, harmful: Array, rate: float) -> float:
    """Share of ``harmful`` above the lowest threshold that flags at most ``rate`` of ``clean``."""
    flagged = int(round(rate * len(clean), 9))  # 0.29 * 100 is a little below 29
    threshold = np.sort(clean)[len(clean) - 1 - flagged]
    return float((harmful > threshold).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of sources that were left out, and thresholds from other sources.

    Attributes:
        clean: float64 [n], scores of the harm source's clean rows.
        harmful: float64 [m], scores of its harmful rows.
        benign: float64 [k], scores of the benign source.
        thresholds: a threshold for each of ``RATES``, from clean rows of the other sources.
    """

    clean: Array
    harmful: Array
    benign: Array
    thresholds: Sequence[float]

    def auroc(self) -> float:
        """Probability that a harmful row scores above a clean one, ties half."""
        labels = np.repeat([0, 1], [len(self.clean), len(self.harmful)])
        return float(roc_auc_score(labels, np.concatenate([self.clean, self.harmful])))

    def rates(self) -> dict[str, float]:
        """Recall at each realised rate; then, at each threshold, what is flagged; per cent."""
        found = {
            f"recall at {rate:.0%}": recall_at_rate(self.clean, self.harmful, rate)
            for rate in RATES
        }
        for rate, threshold in zip(RATES, self.thresholds, strict=True):
            flagged = {"clean": self.clean, "harmful": self.harmful, "benign": self.benign}
            found |= {
                f"{name}, threshold {rate:.0%}": float((scores > threshold).mean())
                for name, scores in flagged.items()
            }
        return {name: 100 * value for name, value in found.items()}

    def resampled(self) -> list[dict[str, float]]:
        """The rates of rows drawn with replacement; all scores of the same rows draw alike."""
        rng = np.random.default_rng(0)
        parts = (self.clean, self.harmful, self.benign)
        return [
            Scored(*(rng.choice(part, len(part)) for part in parts), self.thresholds).rates()
            for _ in range(RESAMPLES)
        ]


def mean_rates(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each rate over sources."""
    return {name: float(np.mean([one[name] for one in many])) for name in many[0]}


def interval(values: Sequence[float]) -> str:
    """The middle 95 % of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.1f} to {high:.1f}"
