"""Shares, their intervals, and groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from layerguard.calibration.evaluation.p_values import check_p_values
from layerguard.calibration.evaluation.rates import by_length, by_source, rate, rates_of
from tests.calibration.evaluation.evaluations import make_row, make_rows


@given(n=st.integers(1, 400), share=st.floats(0, 1))
def test_the_interval_is_clopper_and_pearsons(n: int, share: float) -> None:
    """Its ends are quantiles of beta distributions; each has a tail of 2.5 %."""
    count = round(n * share)
    found = rate([True] * count + [False] * (n - count))
    assert found is not None
    low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low <= found.share <= found.high
    if count:
        assert binom.sf(count - 1, n, found.low) == pytest.approx(0.025, rel=1e-6)


def test_no_rows_have_no_rate() -> None:
    """A share of nothing is None, not zero."""
    assert rate([]) is None
    assert rates_of("all", []).false_alarms is None


@given(st.integers(1, 90), st.integers(0, 99))
def test_groups_add_up(n: int, seed: int) -> None:
    """The groups of sources and of lengths hold every row once, and flagged rows too."""
    rows = make_rows(n, seed)
    total = rates_of("all", rows)
    for groups in (by_source(rows), by_length(rows)):
        for name in ("false_alarms", "detection"):
            own, whole = [getattr(g, name) for g in groups], getattr(total, name)
            parts = [(r.n, r.flagged) for r in own if r is not None]
            expected = (0, 0) if whole is None else (whole.n, whole.flagged)
            assert tuple(np.sum(parts, axis=0) if parts else (0, 0)) == expected


def test_a_row_without_a_domain_belongs_to_its_file() -> None:
    """The source is the domain, or else the file."""
    rows = [make_row("a", 0, (2, 0)), make_row("b", 0, (0, 0), source="chat")]
    assert [(g.group, g.false_alarms.flagged) for g in by_source(rows) if g.false_alarms] == [
        ("chat", 0),
        ("rows", 1),
    ]


@pytest.mark.parametrize(
    ("tokens", "band"),
    [(1, "1 to 16"), (16, "1 to 16"), (17, "17 to 64"), (64, "17 to 64"), (65, "65 to 256"),
     (256, "65 to 256"), (257, "over 256")],
)  # fmt: skip
def test_bands_hold_their_ends(tokens: int, band: str) -> None:
    """A band ends with the number in its name."""
    assert make_row("a", 0, (0, 0), tokens=tokens).band == f"{band} tokens"


@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=200))
def test_p_values_are_counted_up_to_each_target(p_values: list[float]) -> None:
    """The share at a target is that of p-values up to it, in an interval that holds it."""
    check = check_p_values(p_values)
    shares = [np.mean([p <= target for p in p_values]) for target in check.nominal]
    np.testing.assert_allclose(check.share, shares)
    assert (check.low <= check.share).all()
    assert (check.share <= check.high).all()
    assert check.largest_excess == pytest.approx((np.array(shares) - check.nominal).max())
    assert np.interp(check.at, check.nominal, check.share) - check.at == pytest.approx(
        check.largest_excess
    )
    at = int(np.searchsorted(check.nominal, 0.5))
    expected = rate([p <= check.nominal[at] for p in p_values])
    assert expected is not None
    assert (check.low[at], check.high[at]) == pytest.approx((expected.low, expected.high))
