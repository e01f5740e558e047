"""Agreement of detectors, and flips between two guards."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import cohen_kappa_score

from layerguard.calibration.evaluation.agreement import flips, pairs
from tests.calibration.evaluation.evaluations import make_row, make_rows


@given(seed=st.integers(0, 999))
def test_a_pair_counts_every_row_once(seed: int) -> None:
    """The four counts, kappa and the rank correlation are those of the flags and scores."""
    rows = make_rows(60, seed)
    (pair,) = pairs(rows)
    a, b = ([row.readings[name].flagged for row in rows] for name in ("lcf", "siren"))
    assert pair.both == sum(x and y for x, y in zip(a, b, strict=True))
    assert (pair.both + pair.only_first, pair.both + pair.only_second) == (sum(a), sum(b))
    assert pair.both + pair.only_first + pair.only_second + pair.neither == 60
    assert pair.kappa == pytest.approx(cohen_kappa_score(a, b))
    x, y = ([row.readings[name].score for row in rows] for name in ("lcf", "siren"))
    assert pair.rank_correlation == pytest.approx(spearmanr(x, y).statistic)


def test_constant_flags_and_scores_have_no_agreement() -> None:
    """Neither kappa nor a rank correlation is defined."""
    (pair,) = pairs([make_row(str(i), 0, (0.0, 0.1)) for i in range(5)])
    assert (pair.kappa, pair.rank_correlation, pair.neither) == (None, None, 5)
    assert pairs([]) == ()


def test_flips_are_matched_by_row_and_counted_by_label() -> None:
    """A row that one guard could not read is left out; the order does not matter."""
    first = [make_row(str(i), i % 2, (2.0 if i < 6 else 0.0, 0.0)) for i in range(20)]
    second = [
        replace(row, flagged=not row.flagged) if i < 9 else row for i, row in enumerate(first)
    ]
    found = flips(first, list(reversed(second[:-1])), label=0)
    assert found.n == 10
    assert [row.row.id for row in found.only_first] == ["0", "2", "4"]
    assert [row.row.id for row in found.only_second] == ["6", "8"]
    assert found.p_value == pytest.approx(binomtest(3, 5).pvalue)
    assert flips(first, second, label=1).n == 10
    assert flips(first, first, label=0).p_value == 1.0
