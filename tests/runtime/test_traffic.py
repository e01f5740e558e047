"""The martingale over the guard's p-values: valid at any time, and fast after a switch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import Guard
from layerguard.runtime.decision.betting import ALPHA, LEAST_TEXTS
from layerguard.runtime.decision.blocks import Blocks
from layerguard.runtime.decision.sources import MOST_SOURCES
from layerguard.runtime.decision.traffic import TrafficMartingale, TrafficMonitor
from tests.runtime.attacks.test_decisions import decided


def p_values(blocks: Blocks, scores: np.ndarray) -> list[float]:
    """The guard's p-values of texts with these scores, [texts, detectors]."""
    return [blocks.p_value(row) for row in scores.tolist()]


def normal(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    """Scores of two dependent detectors."""
    first = rng.normal(size=n)
    scores: np.ndarray = np.stack([first, first + rng.normal(size=n)], axis=1) + shift
    return scores


@given(st.integers(1, 70), st.lists(st.integers(0, 10_000), max_size=30))
def test_every_bet_is_fair(clean: int, history: list[int]) -> None:
    """Over the next text's block the wealth is unchanged in the mean, after any history."""
    blocks = clean + 1

    def wealth(last: int | None) -> float:
        martingale = TrafficMartingale(clean)
        for block in history if last is None else [*history, last]:
            martingale.update((block % blocks + 1) / blocks)
        return martingale.bets.wealth

    counts = np.bincount([block % blocks for block in history], minlength=blocks)
    probabilities = (1 + counts) / (blocks + len(history))
    after = [wealth(block) for block in range(blocks)]
    assert probabilities @ after == pytest.approx(wealth(None))


def test_exchangeable_traffic_seldom_alarms() -> None:
    """The wealth of 400 guards with their own clean texts ever reaches 20 in at most 5 %.

    If the blocks were taken as equally probable for all traffic, instead of learned from it, the
    draw of the clean texts alone would reach it in half of them.
    """
    rng, reached = np.random.default_rng(0), 0
    for _ in range(400):
        blocks = Blocks(normal(rng, 40), "any")
        martingale = TrafficMartingale(40)
        for p_value in p_values(blocks, normal(rng, 400)):
            martingale.update(p_value)
        reached += martingale.e_value >= 20
    assert reached <= 0.05 * 400


@pytest.mark.parametrize(("shift", "most"), [(1.0, 60), (-1.0, 150), (3.0, 25)])
def test_a_switch_is_noticed(shift: float, most: int) -> None:
    """Larger or smaller scores after 100 quiet texts raise the alarm within ``most`` texts."""
    rng = np.random.default_rng(1)
    blocks = Blocks(normal(rng, 300), "any")
    monitor = TrafficMonitor({None: 300})
    for p_value in p_values(blocks, normal(rng, 100)):
        monitor.update(p_value, "mail")
    assert monitor.drifting == ()
    for p_value in p_values(blocks, normal(rng, most, shift)):
        monitor.update(p_value, "mail")
    assert monitor.drifting == ("mail",)
    for p_value in p_values(blocks, normal(rng, 800)):
        monitor.update(p_value, "mail")
    assert monitor.drifting == ()
    assert monitor.sources["mail"].bets.alarms == 1


def test_a_few_texts_raise_no_alarm() -> None:
    """The same text again and again is noticed, but not before ``LEAST_TEXTS``."""
    monitor = TrafficMonitor({None: 300})
    for _ in range(LEAST_TEXTS - 1):
        monitor.update(1 / 301, None)
        assert monitor.drifting == ()
    assert monitor.sources[None].e_value > 1 / ALPHA
    monitor.update(1 / 301, None)
    assert monitor.drifting == (None,)
    monitor.reset()
    assert monitor.drifting == ()


def test_what_drifts_is_not_learned_as_normal() -> None:
    """An alarm lasts as long as the drift, although the predictions learn from the traffic."""
    rng = np.random.default_rng(2)
    blocks, martingale = Blocks(normal(rng, 300), "any"), TrafficMartingale(300)
    drifting = []
    for p_value in p_values(blocks, normal(rng, 5_000, 2.0)):
        martingale.update(p_value)
        drifting.append(martingale.drifting)
    assert np.mean(drifting[LEAST_TEXTS:]) > 0.9


def test_sources_are_watched_apart_and_bounded() -> None:
    """Each has its clean texts, and too many are not counted."""
    monitor = TrafficMonitor({None: 99, "chat": 19})
    for _ in range(200):
        monitor.update(1 / 100, "odd")
        monitor.update(0.5, None)
        monitor.update(10 / 20, "chat", "chat")
        monitor.update(None, "unread")
    assert list(monitor.sources) == ["odd", None, "chat"]
    assert "odd" in monitor.drifting
    for number in range(2 * MOST_SOURCES):
        monitor.update(0.5, f"source {number}")
    assert len(monitor.sources) == MOST_SOURCES
    assert monitor.sources["odd"].n == 200


def test_the_alarm_level_is_shared_by_the_sources() -> None:
    """The levels ALPHA / (k (k + 1)) sum to ALPHA: the second source needs more wealth."""
    monitor = TrafficMonitor({None: 99})
    for source in ("first", "second", "third"):
        monitor.update(0.5, source)
    levels = [ALPHA * own.bets.alarm_at for own in monitor.sources.values()]
    assert levels == pytest.approx([2, 6, 12])


def test_a_guard_watches_its_traffic(bundle: Path) -> None:
    """By the domain that callers name; a stream counts once; loading counts nothing."""
    guard = Guard.load(decided(bundle), threads=1)
    assert guard.traffic.sources == {}
    guard.check("the garden", domain="chat")
    guard.check("the garden", domain="elsewhere")
    guard.check_batch(["the garden", "low hills"])
    with guard.stream(prompt="the garden") as stream:
        stream.push("was")
        stream.push("quiet")
    assert {source: own.n for source, own in guard.traffic.sources.items()} == {
        "chat": 1,
        "elsewhere": 1,
        None: 3,
    }
