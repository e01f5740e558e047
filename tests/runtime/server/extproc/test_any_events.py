"""Any bytes and any JSON as an answer on its way: read, or refused as wrong input."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.extproc.chats import Events, answers_of, may_embed, requests_of
from tests.runtime.text.test_arbitrary_json import ITEMS, OBJECT

_CHOICES = st.lists(st.fixed_dictionaries({"choices": ITEMS}), max_size=3)
_EVENTS = st.one_of(
    st.lists(OBJECT, max_size=3).map(lambda all_: [json.dumps(one).encode() for one in all_]),
    _CHOICES.map(lambda all_: [json.dumps(one).encode() for one in all_]),
    st.lists(st.binary(max_size=20), max_size=3),
)
_END = st.sampled_from([b"\n\n", b"\r\r", b"\r\n\r\n", b"\n", b""])


@given(data=_EVENTS, end=_END, size=st.integers(1, 200))
def test_events(data: list[bytes], end: bytes, size: int) -> None:
    """What passes is what came, in order."""
    body = b"".join(b"data: " + one + end for one in data)
    events, passed = Events(1 << 20), b""
    try:
        for place in range(0, len(body), size):
            last = place + size >= len(body)
            events.feed(body[place : place + size], last=last)
            assert body.startswith(passed)
            if last:
                events.whole()
            passed += events.release(last=last)
    except InputError:
        return
    assert passed == body


@given(OBJECT | st.fixed_dictionaries({"choices": ITEMS}))
def test_bodies(body: Any) -> None:
    """Of calls and of answers."""
    for read in (requests_of, answers_of, may_embed):
        try:
            read(body)
        except InputError:
            continue
