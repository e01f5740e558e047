"""A long text is looked at in slices, with the matches of the whole."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.text import cuts
from layerguard.runtime.text.cuts import matches

_PATTERNS = {
    "alternatives of which one is the start of another": (r"<abc>|<ab|b>|c", 5),
    "a lookbehind": (r"(?<=a)b", 1),
    "as in placeholders": (r"<([abc]{1,3})>", 5),
}


@pytest.mark.parametrize("name", _PATTERNS)
@given(
    text=st.lists(st.sampled_from(["<", "a", "b", "c", ">", "<abc>", "<ab"])).map("".join),
    size=st.integers(1, 6),
    start=st.integers(0, 4),
)
def test_matches_in_slices_are_those_of_the_whole(
    name: str, text: str, size: int, start: int
) -> None:
    """Wherever a slice ends: none is lost, found twice, or shorter."""
    pattern, longest = re.compile(_PATTERNS[name][0]), _PATTERNS[name][1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "_SLICE", size)
        found = [match.span() for match in matches(pattern, text, longest, start)]
    assert found == [match.span() for match in pattern.finditer(text, start)]
