"""Snapshots make rollback cheap, and are few."""

from math import log2

from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.streaming.snapshots import Snapshots


@given(length=st.integers(1, 600), backs=st.lists(st.integers(0, 600), max_size=4))
def test_going_back_costs_what_was_taken_back(length: int, backs: list[int]) -> None:
    """A rollback never reads more positions again than it removes."""
    snapshots, position = Snapshots(0), 0
    for back in [*backs, 0]:
        while position < length:
            position += 1
            snapshots.add(position, position)
        wanted = max(0, length - back)
        found, value = snapshots.back_to(wanted)
        assert found == value <= wanted
        assert wanted - found <= length - wanted
        position = found


def test_few_are_kept() -> None:
    """Their number grows with the logarithm of the positions."""
    snapshots = Snapshots(0)
    for position in range(1, 5000):
        snapshots.add(position, position)
        assert len(snapshots) <= 2 * log2(position) + 3


def test_copies_part_ways() -> None:
    """Additions to a copy do not change the original."""
    snapshots = Snapshots("first")
    copy = snapshots.copy()
    copy.add(3, "third")
    assert snapshots.back_to(9) == (0, "first")
    assert copy.back_to(9) == (3, "third")


def test_a_later_start() -> None:
    """No position before the first one is kept."""
    snapshots = Snapshots("prompt", 7)
    snapshots.add(9, "answer")
    assert snapshots.back_to(8) == (7, "prompt")
