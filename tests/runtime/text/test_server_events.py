"""Server-sent events: any line end, any cut, and data over several lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.text.server_events import EventReader, data_of, split_events


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\r\rdata", b"a\n"),
        (b"event: x\rdata: a\r\r", b"a"),
        (b": comment\rdata: a\n\n", b"a"),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        (b"data: a\r\ndata:  b\r\n\r\n", b"a\n b"),
        (b": data: a\n\n", b""),
        (b"dataset: a\n\n", b""),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes) -> None:
    """As the standard reads it."""
    assert data_of(event) == data


@given(
    st.lists(st.sampled_from([b"data: a", b": b", b"\n", b"\r\n", b"\r"]), max_size=12), st.data()
)
def test_any_cut_gives_the_same_data(pieces: list[bytes], draw: st.DataObject) -> None:
    """And every byte is in one event."""
    body = b"".join(pieces)
    size = draw.draw(st.integers(1, 5))
    reader = EventReader()
    found = [
        event
        for place in range(0, len(body), size)
        for event in reader.feed(body[place : place + size], last=place + size >= len(body))
    ]
    assert b"".join(found) == body
    read, whole = (list(filter(None, map(data_of, one))) for one in (found, split_events(body)))
    assert read == whole
