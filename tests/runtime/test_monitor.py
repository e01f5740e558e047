"""The flag-rate monitor: rare false alarms, short delays, whatever the traffic did before."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.decision.betting import LEAST_TEXTS
from layerguard.runtime.decision.flag_rate import FlagRateMonitor, Interval
from layerguard.runtime.decision.sources import MOST_SOURCES

PROMISED: Interval = (0.037, 0.065)
"""Of 1,000 clean texts at a target of 5 %."""


def delay(
    monitor: FlagRateMonitor, chance: float, most: int, rng: np.random.Generator
) -> int | None:
    """How many texts, flagged with that chance, until it alarms; None where it does not."""
    for number, flagged in enumerate((rng.random(most) < chance).tolist(), 1):
        monitor.update(flagged=flagged)
        if monitor.drifting:
            return number
    return None


@pytest.mark.parametrize("chance", [*PROMISED, 0.05])
def test_traffic_within_the_interval_hardly_ever_alarms(chance: float) -> None:
    """Of 200 streams fewer than three alarm: at 1 in 1,000 each, three have a chance of 0.1 %.

    At the borders of the interval too, where the bound is sharpest.
    """
    rng = np.random.default_rng(0)
    alarms = [delay(FlagRateMonitor({None: PROMISED}), chance, 1_500, rng) for _ in range(200)]
    assert sum(alarm is not None for alarm in alarms) < 3


@pytest.mark.parametrize(("peace", "most"), [(0, 600), (3_000, 1_300)])
def test_three_times_the_target_is_noticed(peace: int, most: int) -> None:
    """At 15 % instead of 5 %, streams alarm within some hundred texts, after a long peace too."""
    rng = np.random.default_rng(1)
    delays = []
    for _ in range(20):
        monitor = FlagRateMonitor({None: PROMISED})
        assert delay(monitor, 0.05, peace, rng) is None
        delays.append(delay(monitor, 0.15, most, rng))
    assert None not in delays


def test_traffic_that_is_never_flagged_is_noticed() -> None:
    """A guard that went blind drifts as well."""
    assert (
        delay(FlagRateMonitor({None: PROMISED}), 0.0, 1_000, np.random.default_rng(2)) is not None
    )


@given(flags=st.lists(st.booleans(), max_size=40), low=st.floats(0, 1), width=st.floats(0, 1))
def test_the_wealth_is_fair(flags: list[bool], low: float, width: float) -> None:
    """At both ends of the interval the next wealth is at most 1 in the mean, after any texts."""
    high = min(1.0, low + width)

    def wealth(seen: list[bool]) -> float:
        monitor = FlagRateMonitor({None: (low, high)})
        monitor.update(flagged=False)
        for flagged in seen:
            monitor.update(flagged=flagged)
        return monitor.sources[None].bets.wealth

    start, passed, flagged = wealth(flags), wealth([*flags, False]), wealth([*flags, True])
    for chance in (low, high):
        assert chance * flagged + (1 - chance) * passed <= start * (1 + 1e-9)


@pytest.mark.parametrize("promised", [PROMISED, (0.0, 1e-9), (0.9999, 1.0)])
def test_a_few_texts_raise_no_alarm(promised: Interval) -> None:
    """Tests at the start of a service are no drift, whatever the interval."""
    monitor = FlagRateMonitor({None: promised})
    for number in range(LEAST_TEXTS - 1):
        monitor.update(flagged=number % 2 == 0)
        assert not monitor.drifting
    monitor.update(flagged=True)
    assert monitor.drifting == (None,)


def test_one_flagged_text_of_six_raises_no_alarm() -> None:
    """Neither at once nor after a day of normal traffic."""
    monitor = FlagRateMonitor({None: PROMISED})
    for flagged in (False, True, False, False, False, False):
        monitor.update(flagged=flagged)
    assert delay(monitor, 0.05, 2_000, np.random.default_rng(5)) is None


@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_an_alarm_ends_when_the_traffic_is_back(share: float) -> None:
    """Within a few thousand texts, and no sooner than after ``LEAST_TEXTS``; it stays counted."""
    for seed in range(10):
        monitor, rng = FlagRateMonitor({None: PROMISED}), np.random.default_rng(seed)
        assert delay(monitor, share, 2_000, rng) is not None
        back = 0
        while monitor.drifting and back < 3_000:
            monitor.update(flagged=bool(rng.random() < 0.05))
            back += 1
        assert LEAST_TEXTS <= back < 3_000
        assert monitor.sources[None].bets.alarms == 1


def test_an_alarm_lasts_while_the_drift_does() -> None:
    """Ten quiet texts in a row, which chance brings now and then, do not end it."""
    monitor, rng = FlagRateMonitor({None: PROMISED}), np.random.default_rng(6)
    assert delay(monitor, 0.5, 200, rng) is not None
    for _ in range(20_000):
        monitor.update(flagged=bool(rng.random() < 0.5))
    assert monitor.drifting == (None,)
    assert monitor.sources[None].bets.alarms == 1


def test_a_reset_ends_the_alarm() -> None:
    """The operator has acted; the texts are forgotten too."""
    monitor = FlagRateMonitor({None: PROMISED})
    assert delay(monitor, 1.0, 1_000, np.random.default_rng(3))
    assert monitor.drift(None) == (LEAST_TEXTS, LEAST_TEXTS)
    monitor.reset()
    assert (monitor.n, monitor.flagged, monitor.rate, monitor.drifting) == (0, 0, 0.0, ())
    assert monitor.drift(None) is None


def test_sources_are_watched_apart() -> None:
    """A noisy source does not make another one drift; those that are too many share one place."""
    monitor = FlagRateMonitor({None: PROMISED})
    for number in range(2_000):
        monitor.update(flagged=True, source="probe")
        monitor.update(flagged=number % 20 == 0, source="chat")
    assert monitor.drifting == ("probe",)
    assert (monitor.drift("probe"), monitor.drift("chat")) == ((LEAST_TEXTS, LEAST_TEXTS), None)
    assert monitor.drift("not seen yet") is None
    for number in range(2 * MOST_SOURCES):
        monitor.update(flagged=True, source=f"source {number}")
    assert len(monitor.sources) == MOST_SOURCES + 1
    assert monitor.n == 4_000 + 2 * MOST_SOURCES
    for _ in range(LEAST_TEXTS):
        monitor.update(flagged=True, source="one too many")
    assert monitor.drift("another one") is not None


def test_what_promises_nothing_never_drifts() -> None:
    """[0, 1] holds every share."""
    monitor = FlagRateMonitor({None: (0.0, 1.0)})
    assert delay(monitor, 1.0, 500, np.random.default_rng(4)) is None
    assert (monitor.n, monitor.flagged, monitor.rate) == (500, 500, 1.0)
    assert monitor.sources[None].bets.e_value == pytest.approx(1.0)


def test_every_domain_is_held_to_its_own_interval() -> None:
    """A share that is right for one is drift for another; an unknown one is all traffic."""
    promised = {None: PROMISED, "chat": (0.4, 0.6)}
    for domain, drifts in (("chat", False), ("mail", True), (None, True)):
        monitor = FlagRateMonitor(promised)
        for number in range(600):
            monitor.update(flagged=number % 2 == 0, domain=domain)
        assert bool(monitor.drifting) == drifts


def test_threads_lose_no_text() -> None:
    """Eight threads count what they saw."""
    monitor = FlagRateMonitor({None: (0.0, 1.0)})

    def count() -> None:
        for number in range(500):
            monitor.update(flagged=number % 5 == 0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (monitor.n, monitor.flagged) == (4_000, 800)
