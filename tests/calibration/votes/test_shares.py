"""Shares with exact intervals, bands of length, and drift over the order of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from layerguard.calibration.votes.shares import (
    by_group,
    drift_over_order,
    length_band,
    lower_bound,
    of_all,
    share,
)


@given(st.integers(1, 200), st.data())
def test_the_interval_is_the_exact_one(n: int, data: st.DataObject) -> None:
    """At each end, the count has a probability of 2.5 % to be as extreme (the definition)."""
    flagged = data.draw(st.integers(0, n))
    card = share(n, flagged)
    low, high = card.interval
    assert low <= flagged / n <= high
    assert low == 0 if not flagged else binom.sf(flagged - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if flagged == n else binom.cdf(flagged, n, high) == pytest.approx(0.025)


def test_a_smaller_error_gives_a_lower_bound() -> None:
    """As the Bonferroni correction of several sources needs."""
    assert 0 == lower_bound(30, 0, 0.05) < lower_bound(30, 4, 0.01) < lower_bound(30, 4, 0.05)


def test_groups_are_counted_apart() -> None:
    """Texts without a group are left out; no texts give no share."""
    flags = {"a": True, "b": False, "c": True, "d": True}
    found = by_group(flags, {"a": "x", "b": "x", "c": "y"})
    assert {name: (card.n, card.flagged) for name, card in found.items()} == {
        "x": (2, 1),
        "y": (1, 1),
    }
    assert of_all([]) is None


@pytest.mark.parametrize(
    ("length", "band"),
    [(0, "0 to 50"), (50, "0 to 50"), (51, "51 to 200"), (800, "201 to 800"), (801, "over 800")],
)
def test_bands_of_length_include_their_upper_end(length: int, band: str) -> None:
    """In characters."""
    assert length_band("x" * length) == band


def test_drift_over_the_order_is_a_rank_correlation() -> None:
    """1 for rising scores, near 0 for shuffled ones; None for few or equal ones."""
    rising = {str(i): float(i) ** 3 for i in range(100)}
    found = drift_over_order(rising)
    assert found is not None
    assert (found.correlation, found.p_value < 1e-9) == (pytest.approx(1), True)
    shuffled = np.random.default_rng(0).permutation(100)
    noise = drift_over_order({str(i): rising[str(i)] for i in shuffled})
    assert noise is not None
    assert abs(noise.correlation) < 0.2
    assert noise.p_value > 0.05
    assert drift_over_order({str(i): 1.0 for i in range(100)}) is None
    assert drift_over_order({str(i): float(i) for i in range(29)}) is None
