"""Recall at a realised rate of false alarms."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.truth.operating_point import RATES, Scored, recall_at_rate

SCORES = st.lists(st.integers(0, 30), min_size=1, max_size=120)


@given(clean=SCORES, harmful=SCORES, percent=st.integers(0, 99))
def test_recall_is_the_best_of_all_thresholds(
    clean: list[int], harmful: list[int], percent: int
) -> None:
    """No threshold that flags at most this share of the clean rows finds more; ties included."""
    known, wanted = np.array(clean), np.array(harmful)
    best = max(
        (wanted > threshold).mean()
        for threshold in range(-1, 31)
        if 100 * (known > threshold).sum() <= percent * len(known)
    )
    assert recall_at_rate(known, wanted, percent / 100) == best


def test_thresholds_of_other_sources_are_taken_as_they_are() -> None:
    """The rates count what is above each threshold, in per cent."""
    parts = np.arange(10.0), np.arange(5.0, 15.0), np.full(4, 3.0)
    found = Scored(*parts, thresholds=(8.0, 2.0)).rates()
    assert len(RATES) == 2
    at_first = [found[f"{name}, threshold 1%"] for name in ("clean", "harmful", "benign")]
    at_second = [found[f"{name}, threshold 5%"] for name in ("clean", "harmful", "benign")]
    assert at_first == [10.0, 60.0, 0.0]
    assert at_second == [70.0, 100.0, 100.0]
