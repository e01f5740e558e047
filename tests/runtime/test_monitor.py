"""The flag-rate monitor: rare false alarms, short delays, whatever the traffic did before."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.decision.flag_rate import ALPHA, FlagRateMonitor, Interval

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
    """Whatever came before, at both ends of the interval the next wealth is 1 in the mean, at most.

    The e-value is the largest wealth so far; here it is asked of a text that raises it.
    """
    high = min(1.0, low + width)
    wealth = {}
    for last in (True, False):
        monitor = FlagRateMonitor({None: (low, high)})
        for flagged in [*flags, last]:
            monitor.update(flagged=flagged)
        wealth[last] = sum(monitor._wealth) + 1 / (monitor.n + 1)
    before = FlagRateMonitor({None: (low, high)})
    for flagged in flags:
        before.update(flagged=flagged)
    if before.drifting:
        return
    start = sum(before._wealth) + 1 / (before.n + 1)
    for chance in (low, high):
        assert chance * wealth[True] + (1 - chance) * wealth[False] <= start * (1 + 1e-9)


def test_it_stays_drifting_until_it_is_reset() -> None:
    """An alarm that vanishes by itself would be missed."""
    monitor = FlagRateMonitor({None: PROMISED})
    rng = np.random.default_rng(3)
    assert delay(monitor, 1.0, 1_000, rng)
    assert delay(monitor, 0.05, 500, rng) == 1
    assert monitor.e_value >= 1 / ALPHA
    monitor.reset()
    assert (monitor.n, monitor.flagged, monitor.rate, monitor.drifting) == (0, 0, 0.0, False)


def test_what_promises_nothing_never_drifts() -> None:
    """[0, 1] holds every share."""
    monitor = FlagRateMonitor({None: (0.0, 1.0)})
    assert delay(monitor, 1.0, 500, np.random.default_rng(4)) is None
    assert (monitor.n, monitor.flagged, monitor.rate) == (500, 500, 1.0)
    assert monitor.e_value == pytest.approx(1.0)


def test_every_domain_is_held_to_its_own_interval() -> None:
    """A share that is right for one is drift for another; an unknown one is all traffic."""
    promised = {None: PROMISED, "chat": (0.4, 0.6)}
    for domain, drifts in (("chat", False), ("mail", True), (None, True)):
        monitor = FlagRateMonitor(promised)
        for number in range(600):
            monitor.update(flagged=number % 2 == 0, domain=domain)
        assert monitor.drifting == drifts


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
