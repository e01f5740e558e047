"""From a score to a reading: p-values against counting, thresholds, and failing closed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.detectors.decide import decide

_SCORES = st.floats(-1e6, 1e6, allow_nan=False)


@given(clean=st.lists(_SCORES, max_size=30), score=_SCORES, threshold=_SCORES)
def test_p_values_are_what_counting_gives(
    clean: list[float], score: float, threshold: float
) -> None:
    """The p-value is (1 + #{clean >= score}) / (n + 1); flagged is what is above the threshold."""
    reading = decide("lcf", score, threshold, sorted(clean), ())
    assert reading.p_value == (1 + sum(item >= score for item in clean)) / (len(clean) + 1)
    assert 0 < reading.p_value <= 1
    assert reading.flagged == (score > threshold)
    assert reading.status == "ok"


@given(clean=st.lists(_SCORES, min_size=1, max_size=30), lower=_SCORES, step=st.floats(0, 1e6))
def test_a_larger_score_is_never_likelier(clean: list[float], lower: float, step: float) -> None:
    """p-values fall as scores rise."""
    one, other = (decide("lcf", s, 0.0, sorted(clean), ()) for s in (lower, lower + step))
    assert other.p_value <= one.p_value


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [0.0, math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_flagged(score: float, threshold: float) -> None:
    """No threshold lets NaN or infinity pass; the p-value is the smallest there is."""
    reading = decide("lcf", score, threshold, [1.0, 2.0, 3.0], ())
    assert (reading.flagged, reading.status) == (True, "invalid")
    assert reading.p_value == 1 / 4


def test_equal_scores_count_against_the_text() -> None:
    """A tie with clean scores counts them all, so a constant detector gives p = 1."""
    assert decide("lcf", 2.0, 2.0, [2.0] * 9, ()).p_value == 1
