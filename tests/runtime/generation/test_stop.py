"""Stop strings: text ends before the first one, and possible beginnings are held back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.stop import StopText

PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(PIECES, STOPS)
def test_pieces_make_no_difference(pieces: list[str], stops: list[str]) -> None:
    """The released text ends before the first complete stop string, however it is split."""
    whole = "".join(pieces)
    found = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    ends = [start for _, start in sorted(found)[:1]]
    text = StopText(stops)
    left = "".join(text.push(piece) for piece in pieces) + text.finish()
    assert left == whole[: ends[0] if ends else len(whole)]
    assert text.stopped == bool(ends)


@given(PIECES, STOPS)
def test_nothing_is_held_longer_than_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    """At most one character less than the longest stop string is held back."""
    text, pushed, left = StopText(stops), 0, 0
    for piece in pieces:
        pushed += len(piece)
        left += len(text.push(piece))
        assert text.stopped or pushed - left < max(map(len, stops), default=1)


@pytest.mark.parametrize("bad", [("",), (1,), "stop"])
def test_stop_strings_are_checked(bad: object) -> None:
    """An empty stop string, and a str instead of a list, are refused."""
    with pytest.raises(InputError, match="stop"):
        StopText(bad)  # type: ignore[arg-type]
