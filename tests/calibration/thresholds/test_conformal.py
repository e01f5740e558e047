"""Conformal thresholds: the right rank, the right refusals, the promised rate."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from layerguard.calibration.thresholds import conformal
from layerguard.runtime.errors import CalibrationError, InputError

TARGETS = st.integers(1, 99).map(lambda per_cent: per_cent / 100)


@given(
    scores=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    target=TARGETS,
)
def test_threshold_is_the_smallest_score_that_keeps_the_promise(
    scores: list[float], target: float
) -> None:
    """Brute force: the least score that at most floor(alpha (n + 1)) - 1 others exceed."""
    allowed = math.floor(Fraction(str(target)) * (len(scores) + 1)) - 1
    keeps = [s for s in scores if sum(other > s for other in scores) <= allowed]
    if keeps:
        assert conformal.threshold(np.array(scores), target) == min(keeps)
    else:
        with pytest.raises(CalibrationError, match="needs at least"):
            conformal.threshold(np.array(scores), target)


@pytest.mark.parametrize(
    ("target", "least"), [(0.1, 9), (0.01, 99), (0.001, 999), (0.05, 19), (0.29, 3), (0.3, 3)]
)
def test_least_rows_is_the_border_of_refusal(target: float, least: int) -> None:
    """One row fewer than the least number is refused; the message has both numbers."""
    assert conformal.least_rows(target) == least
    assert conformal.rank(least, target) == least
    with pytest.raises(
        CalibrationError, match=f"at least {least} clean prompts, found {least - 1}"
    ):
        conformal.rank(least - 1, target)


def test_a_target_of_a_tenth_of_a_per_cent_is_refused_in_plain_words() -> None:
    """The message has the sentence of the specification."""
    with pytest.raises(
        CalibrationError, match=r"target 0\.1 % needs at least 999 clean prompts, found 200"
    ):
        conformal.rank(200, 0.001)


def test_targets_count_as_the_decimals_they_were_written_as() -> None:
    """0.29 of 100 is 29, not 28.999... as in binary fractions."""
    assert conformal.rank(99, 0.29) == 71


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 7.0, math.nan])
def test_a_target_outside_the_open_unit_interval_is_refused(target: float) -> None:
    """A target of 0 or 1, or outside, is refused."""
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal.rank(100, target)


@given(n=st.integers(20, 2000), target=st.integers(5, 50).map(lambda per_cent: per_cent / 100))
def test_interval_surrounds_the_expected_rate(n: int, target: float) -> None:
    """The mean of the Beta law lies within its interval, at most the target."""
    low, high = conformal.fpr_interval(n, target)
    expected = (n + 1 - conformal.rank(n, target)) / (n + 1)
    assert 0 <= low < expected <= target + 1e-12
    assert expected < high <= 1


def test_realised_rate_follows_its_interval() -> None:
    """Of 2,000 draws of 99 scores, 95 % realise a rate within the 95 % interval."""
    rng = np.random.default_rng(0)
    low, high = conformal.fpr_interval(99, 0.1)
    realised = np.array([1 - conformal.threshold(rng.random(99), 0.1) for _ in range(2000)])
    inside = np.mean((low <= realised) & (realised <= high))
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
    assert abs(realised.mean() - 0.1) < 4 * realised.std() / math.sqrt(2000)


@given(n=st.integers(20, 3000), target=st.integers(5, 50).map(lambda per_cent: per_cent / 100))
def test_interval_is_the_law_of_an_order_statistic(n: int, target: float) -> None:
    """A rate below x means that at least n + 1 - k of n uniform scores lie in a part of length x.

    So the bounds are where that binomial probability is 2.5 and 97.5 %; and the law is
    Beta(n + 1 - k, k), neither count one more or less.
    """
    low, high = conformal.fpr_interval(n, target)
    k = conformal.rank(n, target)
    above = n + 1 - k
    assert binom.sf(above - 1, n, low) == pytest.approx(0.025, rel=1e-9)
    assert binom.sf(above - 1, n, high) == pytest.approx(0.975, rel=1e-9)
    assert beta(above, k).cdf([low, high]) == pytest.approx([0.025, 0.975], rel=1e-9)


@pytest.mark.parametrize(("n", "target"), [(19, 0.05), (19, 0.1), (30, 0.2)])
def test_tails_of_the_realised_rate_are_the_intervals(n: int, target: float) -> None:
    """Of 40,000 draws 2.5 % lie beyond either bound, within five standard errors."""
    draws = np.sort(np.random.default_rng(1).random((40_000, n)), axis=1)
    realised = 1 - draws[:, conformal.rank(n, target) - 1]
    low, high = conformal.fpr_interval(n, target)
    error = math.sqrt(0.025 * 0.975 / len(draws))
    assert abs(np.mean(realised < low) - 0.025) < 5 * error
    assert abs(np.mean(realised > high) - 0.025) < 5 * error
