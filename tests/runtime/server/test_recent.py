"""What the page is shown: bounded, and without texts."""

from types import MappingProxyType

from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.recent import DECISIONS, SAMPLES, SLOT_S, SLOTS, Recent

_UNCHECKED = Answer("main", "off", None, MappingProxyType({"": 0.0}))


def test_decisions_are_bounded_and_the_newest_comes_first() -> None:
    """Older ones are forgotten."""
    now = 0.0
    recent = Recent(lambda: now)
    for second in range(DECISIONS + 5):
        now = float(second)
        recent.answered("native", "request", _UNCHECKED)
    times = [decision["at"] for decision in recent.decisions()]
    assert times == [float(second) for second in range(DECISIONS + 4, 4, -1)]


def test_decisions_are_counted_by_time() -> None:
    """In slots of equal length that move on without traffic too."""
    now = 1000.0
    recent = Recent(lambda: now)
    for later in (0.0, SLOT_S - 1.0, SLOT_S, 3.0 * SLOT_S):
        now = 1000.0 + later
        recent.answered("native", "request", _UNCHECKED)
    counts = [slot.get("unchecked", 0) for slot in recent.slots()]
    assert (len(counts), counts[-4:]) == (SLOTS, [2, 1, 0, 1])
    now += SLOT_S
    assert [slot.get("unchecked", 0) for slot in recent.slots()][-3:] == [0, 1, 0]
    now += SLOTS * SLOT_S
    assert recent.slots() == [{}] * SLOTS


def test_a_clock_that_goes_back_loses_no_decision() -> None:
    """They are counted in the latest slot."""
    now = 1000.0
    recent = Recent(lambda: now)
    recent.answered("native", "request", _UNCHECKED)
    now = 900.0
    recent.answered("native", "request", _UNCHECKED)
    now = 1000.0
    assert recent.slots()[-1] == {"unchecked": 2}


def test_stages_have_the_quantiles_of_their_last_times() -> None:
    """Of the last ones only."""
    recent = Recent()
    for milliseconds in [1e6] * 10 + list(range(SAMPLES)):
        recent.took("graph", milliseconds)
    (row,) = recent.stages()
    assert row == {"stage": "graph", "texts": SAMPLES, "p50": 500, "p95": 950, "p99": 990}
