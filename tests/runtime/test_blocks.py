"""Statistically equivalent blocks: cuts as by hand, the promised law, and p-values that agree."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.types import Array, Combination
from tests.reference.blocks import cut_by_hand

COMBINATIONS: tuple[Combination, ...] = ("any", "all")


def correlated(n: int, detectors: int, share: float, rng: np.random.Generator) -> Array:
    """Scores whose detectors have a share of their variance in common."""
    common, own = rng.normal(size=(n, 1)), rng.normal(size=(n, detectors))
    scores: Array = np.sqrt(share) * common + np.sqrt(1 - share) * own
    return scores


def flagged(scores: Array, limits: list[float | None], combination: Combination) -> Array:
    """Which texts the thresholds flag together."""
    above = scores > np.array(limits, np.float64)
    flags: Array = above.any(axis=1) if combination == "any" else above.all(axis=1)
    return flags


@given(n=st.integers(1, 25), detectors=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_cuts_are_those_made_by_hand(n: int, detectors: int, seed: int) -> None:
    """After every number of cuts the thresholds are those of the definition."""
    scores = np.random.default_rng(seed).permutation(n * detectors).reshape(n, detectors) * 1.0
    blocks = Blocks(scores, "any")
    expected: list[float | None] = [None] * detectors
    for number, (text, detector) in enumerate(cut_by_hand(scores), 1):
        expected[detector] = scores[text, detector]
        assert blocks.thresholds(number) == expected


@given(n=st.integers(1, 40), seed=st.integers(0, 999), per_cent=st.integers(1, 99))
def test_one_detector_has_the_conformal_threshold(n: int, seed: int, per_cent: int) -> None:
    """The k-th smallest score, k = ceil((n + 1)(1 - target)), by either combination."""
    scores = np.random.default_rng(seed).normal(size=n)
    count = allowed(n, per_cent / 100)
    if count:
        expected = np.sort(scores)[n - count]
        assert Blocks(scores[:, None], "any").thresholds(count) == [expected]
        assert Blocks(scores[:, None], "all").thresholds(count) == [expected]


@pytest.mark.parametrize("combination", COMBINATIONS)
@given(
    n=st.integers(3, 30),
    detectors=st.integers(1, 3),
    seed=st.integers(0, 999),
    levels=st.integers(2, 50),
)
def test_flags_and_p_values_agree(
    combination: Combination, n: int, detectors: int, seed: int, levels: int
) -> None:
    """A text is flagged at a share of blocks where its p-value is within it; ties or none."""
    rng = np.random.default_rng(seed)
    blocks = Blocks(rng.integers(0, levels, (n, detectors)) * 1.0, combination)
    fresh = rng.integers(0, levels, (20, detectors)) * 1.0
    p_values = np.array([blocks.p_value(row) for row in fresh.tolist()])
    assert ((p_values > 0) & (p_values <= 1)).all()
    for count in range(1, n + 1):
        limits = blocks.thresholds(count)
        if None not in limits:
            within = p_values <= (count + 0.5) / (n + 1)
            assert (flagged(fresh, limits, combination) == within).all()


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("share", [0.0, 0.95])
@pytest.mark.parametrize("detectors", [1, 2, 3])
@pytest.mark.parametrize(("target", "n"), [(0.1, 99), (0.05, 139), (0.01, 499)])
def test_realised_share_is_the_target(
    target: float, n: int, detectors: int, share: float, combination: Combination
) -> None:
    """Fresh texts are flagged at the target, whatever detectors have in common.

    The shares of 200 draws follow Beta(a, n + 1 - a); their mean is held to four of its standard
    errors, as 36 cases at 95 % would fail twice.
    """
    rng = np.random.default_rng([n, detectors, int(share > 0)])
    draws, count = 200, allowed(n, target)
    realised = np.empty(draws)
    for draw in range(draws):
        clean = correlated(n, detectors, share, rng)
        fresh = correlated(1000, detectors, share, rng)
        limits = Blocks(clean, combination).thresholds(count)
        realised[draw] = flagged(fresh, limits, combination).mean()
    expected = count / (n + 1)
    assert expected <= target
    beta_variance = expected * (1 - expected) / (n + 2)
    spread = math.sqrt((beta_variance + expected * (1 - expected) / 1000) / draws)
    assert abs(realised.mean() - expected) < 4 * spread
    # the law, not only its mean: the spread of the draws is that of Beta and binomial together
    assert realised.std() == pytest.approx(spread * math.sqrt(draws), rel=0.2)


@pytest.mark.parametrize("combination", COMBINATIONS)
@given(
    n=st.integers(2, 12), detectors=st.integers(1, 3), seed=st.integers(0, 999), ties=st.booleans()
)
def test_the_promise_is_exact(
    combination: Combination, n: int, detectors: int, seed: int, ties: bool
) -> None:
    """Of n + 1 texts, each against the others, exactly a have a p-value within a / (n + 1).

    Of exchangeable texts each is equally likely to come last, so that is the chance of a flag. Ties
    only make it smaller.
    """
    rng = np.random.default_rng(seed)
    bag = rng.permutation((n + 1) * detectors).reshape(n + 1, detectors) * 1.0
    if ties:
        bag //= 4
    p_values = [
        Blocks(np.delete(bag, text, axis=0), combination).p_value(bag[text].tolist())
        for text in range(n + 1)
    ]
    for count in range(1, n + 1):
        hits = sum(p_value <= (count + 0.5) / (n + 1) for p_value in p_values)
        assert hits <= count if ties else hits == count


@pytest.mark.parametrize(
    ("n", "target", "expected"), [(99, 0.29, 29), (99, 0.01, 1), (98, 0.01, 0)]
)
def test_targets_count_as_the_decimals_they_were_written_as(
    n: int, target: float, expected: int
) -> None:
    """0.29 of 100 is 29, not the 28.999... of binary fractions."""
    assert allowed(n, target) == expected
