"""The longest common prefix of texts and of token lists."""

from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.text.shared_prefix import shared_prefix


@given(first=st.text("ab", max_size=9), second=st.text("ab", max_size=9))
def test_texts(first: str, second: str) -> None:
    """The two texts have this prefix in common, and no longer one."""
    length = shared_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or first == second


@given(ids=st.lists(st.integers(0, 1), max_size=9), others=st.lists(st.integers(0, 1), max_size=9))
def test_lists(ids: list[int], others: list[int]) -> None:
    """Lists are compared element by element."""
    length = shared_prefix(ids, others)
    assert ids[:length] == others[:length]
    assert ids[: length + 1] != others[: length + 1] or ids == others
