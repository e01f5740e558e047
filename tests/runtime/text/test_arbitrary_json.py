"""Any JSON in the place of a call or an answer: it is read, or refused as wrong input."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of
from layerguard.runtime.text.request import request
from layerguard.runtime.text.responses_form import answer_in, answer_of, chat_of, is_chat

_NAMES = (
    "type", "role", "content", "text", "input", "output", "instructions", "tools", "tool_calls",
    "summary", "arguments", "name", "function", "function_call", "index", "delta", "item", "part",
    "response", "message", "refusal", "call_id",
)  # fmt: skip
_WORDS = st.sampled_from(
    ["message", "reasoning", "function_call", "function_call_output", "custom_tool_call", "user",
     "assistant", "response.completed", "response.output_text.delta", "error", "", "text"]
)  # fmt: skip
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS | st.text()
_JSON = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=6)
ITEMS = st.lists(OBJECT, max_size=3)


def _deep(levels: int, *, lists: bool) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = {"content": [value] if lists else value}
    return value


def _read_or_refuse(read: Callable[[], Any]) -> None:
    with suppress(InputError):
        read()


@given(OBJECT | ITEMS.map(lambda items: {"input": items}))
def test_calls(call: Any) -> None:
    """A call of the Responses API, up to the request."""
    _read_or_refuse(lambda: (is_chat(call), request(**chat_of(call))))


@given(OBJECT | ITEMS.map(lambda items: {"output": items}))
def test_answers(body: Any) -> None:
    """A whole answer of it."""
    _read_or_refuse(lambda: request(messages=[answer_of(body)]))


@given(ITEMS, ITEMS)
def test_events(events: Any, output: Any) -> None:
    """A streamed answer of it."""
    last = {"type": "response.completed", "response": {"output": output}}
    _read_or_refuse(lambda: request(messages=[answer_in([*events, last])]))
    _read_or_refuse(lambda: answer_in(events))


@given(ITEMS)
def test_deltas(deltas: Any) -> None:
    """Parts of a message."""
    message = GrowingMessage()
    for one in deltas:
        _read_or_refuse(lambda one=one: message.add(parts_of(one)))  # type: ignore[misc]
    message.message()


@pytest.mark.parametrize("levels", [100, 400, 900])
@pytest.mark.parametrize("lists", [False, True])
def test_depth(levels: int, *, lists: bool) -> None:
    """As deep as JSON is read."""
    deep = _deep(levels, lists=lists)
    item = {"type": "odd", "more": deep}
    last = {"type": "response.completed", "response": {"output": [item]}}
    call = {"index": 0, "function": {"arguments": deep}}
    message = GrowingMessage()
    _read_or_refuse(lambda: request(**chat_of({"input": [item]})))
    _read_or_refuse(lambda: request(messages=[answer_in([{"delta": deep}, last])]))
    _read_or_refuse(lambda: [message.add({"tool_calls": [call]}) for _ in range(2)])
