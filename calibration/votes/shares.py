"""Shares of flagged texts, with exact intervals."""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.stats import beta, spearmanr

from layerguard.calibration.rows.traffic import LEAST_TEXTS
from layerguard.calibration.thresholds.conformal import CONFIDENCE
from layerguard.runtime.bundle.votes import OrderCard, ShareCard

LENGTHS = (50, 200, 800)
"""Upper bounds of the bands of length, in characters of the prompt."""


def share(n: int, flagged: int) -> ShareCard:
    """A share with its Clopper-Pearson interval at ``CONFIDENCE``."""
    tail = (1 - CONFIDENCE) / 2
    low = lower_bound(n, flagged, tail)
    return ShareCard(n, flagged, (low, 1 - lower_bound(n, n - flagged, tail)))


def lower_bound(n: int, flagged: int, error: float) -> float:
    """The one-sided Clopper-Pearson bound; above the true share with at most this probability."""
    return float(beta.ppf(error, flagged, n - flagged + 1)) if flagged else 0.0


def by_group(flags: Mapping[str, bool], group_of: Mapping[str, str]) -> dict[str, ShareCard]:
    """The share of each group; texts without a group are left out."""
    found: dict[str, list[bool]] = {}
    for text, flag in flags.items():
        if text in group_of:
            found.setdefault(group_of[text], []).append(flag)
    return {name: share(len(own), sum(own)) for name, own in sorted(found.items())}


def of_all(flags: Iterable[bool]) -> ShareCard | None:
    """The share of all texts; None if there are none."""
    own = list(flags)
    return share(len(own), sum(own)) if own else None


def length_band(text: str) -> str:
    """The band of a text's length, such as ``51 to 200``."""
    number = int(np.searchsorted(LENGTHS, len(text)))
    if number == len(LENGTHS):
        return f"over {LENGTHS[-1]}"
    return f"{LENGTHS[number - 1] + 1 if number else 0} to {LENGTHS[number]}"


def drift_over_order(scores: Mapping[str, float]) -> OrderCard | None:
    """The rank correlation of the scores with their order; None for few or equal scores."""
    values = np.array(list(scores.values()))
    if len(values) < LEAST_TEXTS or np.ptp(values) == 0:
        return None
    found = spearmanr(np.arange(len(values)), values)
    return OrderCard(float(found.statistic), float(found.pvalue))
