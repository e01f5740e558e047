"""The Responses API as a chat: no string of it is lost."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.responses_form import answer_in, answer_of, chat_of, is_chat

_WORD = st.text("abcdefgh", min_size=6, max_size=9)
_PART = st.builds(
    lambda kind, text: {"type": kind, "text": text},
    st.sampled_from(["input_text", "output_text", "summary_text", "reasoning_text", "odd"]),
    _WORD,
)
_PARTS = st.lists(_PART, max_size=2)


def _item(kind: str, **members: Any) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=members)


_ITEM = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"]), "content": _WORD | _PARTS}
    ),
    _item("function_call", call_id=_WORD, name=_WORD, arguments=_WORD, more=_WORD),
    _item("custom_tool_call", call_id=_WORD, name=_WORD, input=_WORD),
    _item("function_call_output", call_id=_WORD, output=_WORD | _PARTS),
    _item("reasoning", summary=_PARTS, content=_PARTS),
    _item("web_search_call", action=st.fixed_dictionaries({"query": _WORD})),
)
_TOOL = _item("function", name=_WORD, description=_WORD)


def _strings(value: Any) -> Iterator[str]:
    """Every string value but those of types and roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item) if key not in ("type", "role") else ()
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _read(found: Request) -> str:
    return "\n".join(leaf.text or "" for leaf in found.leaves())


@given(st.lists(_ITEM, min_size=1, max_size=4), _WORD | st.none(), st.lists(_TOOL, max_size=2))
def test_every_string_of_a_call_is_a_string_of_the_chat(
    items: Any, told: str | None, tools: Any
) -> None:
    """Whichever item holds it."""
    call = {"input": items, "instructions": told, "tools": tools}
    text = _read(request(**chat_of(call)))
    assert all(one in text for one in _strings(call))


@given(st.lists(_ITEM, max_size=4))
def test_an_answer_is_one_turn_with_every_string(items: Any) -> None:
    """As chat templates expect."""
    turn = answer_of({"output": items})
    assert turn["role"] == "assistant"
    text = _read(request(messages=[turn]))
    assert all(one in text for one in _strings(items))


def test_a_chat_has_the_turns_of_its_items() -> None:
    """Calls and texts of the assistant that follow each other are one turn."""
    function = {"type": "function", "name": "look", "parameters": {}}
    call = {
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": "where?"},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "id": "f", "call_id": "1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "here"},
        ],
        "tools": [function],
    }
    assert chat_of(call) == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "where?"},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "hm"}],
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "here", "tool_call_id": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    }


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"input": "rain"}, False),
        ({"input": ["rain"]}, False),
        ({"messages": [], "tools": []}, False),
        ({"input": "rain", "instructions": "be brief"}, True),
        ({"input": "rain", "tools": []}, True),
        ({"input": [{"role": "user", "content": "rain"}]}, True),
    ],
)
def test_a_chat_is_told_from_the_texts_of_an_embedding(call: Any, expected: bool) -> None:
    """Both are named input."""
    assert is_chat(call) == expected


@pytest.mark.parametrize(
    "call",
    [
        {"input": None},
        {"input": ["rain"]},
        {"input": "rain", "prompt": {"id": "1", "variables": {"a": "boats"}}},
        {"input": "rain", "tools": {}},
    ],
)
def test_what_cannot_be_read_is_refused(call: Any) -> None:
    """With a sentence."""
    with pytest.raises(InputError):
        chat_of(call)


def _event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


def _completed(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text} for text in texts]
    item = {"type": "message", "role": "assistant", "content": parts}
    return _event("response.completed", response={"output": [item]})


def test_the_last_event_holds_the_answer() -> None:
    """Its parts are not read twice."""
    parts = [_event("response.output_text.delta", delta=part) for part in ("ra", "in")]
    turn = answer_in([_event("response.created", response={}), *parts, _completed("rain")])
    assert [part["text"] for part in turn["content"]] == ["rain"]


def test_parts_that_the_last_event_does_not_repeat_are_read() -> None:
    """A client shows them as they come."""
    parts = [_event("response.output_text.delta", delta=part) for part in ("bo", "ats")]
    turn = answer_in([*parts, _completed("rain")])
    assert [part["text"] for part in turn["content"]] == ["rain", "boats"]


@pytest.mark.parametrize("events", [[], [_event("response.created", response={"output": []})]])
def test_an_answer_that_breaks_off_is_refused(events: Any) -> None:
    """What it would have held is not known."""
    with pytest.raises(InputError, match=r"expected 'response\.completed'"):
        answer_in(events)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "arguments": "boats", "tool_calls": []},
        {"type": "function_call", "arguments": "boats", "role": "user"},
        {"type": "function_call_output", "output": "boats", "content": "rain"},
        {"type": "function_call_output", "output": "boats", "role": "assistant"},
        {"type": "reasoning", "content": "boats", "role": "system"},
        {"type": ["message"]},
    ],
)
def test_an_item_with_a_member_of_another_form_is_refused(item: Any) -> None:
    """One of the two would take the other's place, and not be read."""
    with pytest.raises(InputError, match="item"):
        chat_of({"input": [item]})


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "arguments": "boats", "content": None, "role": "assistant"},
        {"type": "reasoning", "summary": "boats", "content": {"text": "rain"}},
        {"type": None, "role": "user", "content": "boats"},
        {"role": "assistant", "content": "rain", "tool_calls": {"name": "boats"}},
    ],
)
def test_odd_members_of_an_item_are_read(item: Any) -> None:
    """They are of the form, or beside it."""
    other = {"role": "assistant", "content": "hills"}
    assert "boats" in _read(request(**chat_of({"input": [item, other]})))


def test_the_output_of_any_tool_is_a_turn_of_a_tool() -> None:
    """At the end of a chat it belongs to the prompt, and a turn of the assistant would not."""
    item = {"type": "shell_call_output", "output": [{"stdout": "boats"}]}
    (turn,) = request(**chat_of({"input": [item]})).prompt_turns
    assert turn["role"] == "tool"


@pytest.mark.parametrize(
    "call",
    [
        {
            "input": "rain",
            "text": {"format": {"type": "json_schema", "schema": {"title": "boats"}}},
        },
        {"input": "rain", "functions": [{"name": "boats"}]},
    ],
)
def test_what_a_model_reads_beside_the_input_is_read(call: Any) -> None:
    """Functions, and the schema of the answer."""
    assert is_chat(call)
    assert "boats" in _read(request(**chat_of(call)))


@pytest.mark.parametrize(
    "event",
    [
        _event("response.output_text.done", text="boats"),
        _event("response.content_part.added", part={"type": "output_text", "text": "boats"}),
        _event("response.output_item.done", item={"type": "odd", "content": [{"text": "boats"}]}),
        _event("response.in_progress", response={"output": [{"content": [{"text": "boats"}]}]}),
        _event("response.reasoning_summary_text.delta", delta={"text": "boats"}),
        _event("error", message="boats"),
    ],
)
def test_text_in_any_event_is_read(event: Any) -> None:
    """A client may show it, whether or not the last event repeats it."""
    turn = answer_in([event, _completed("rain")])
    assert [part["text"] for part in turn["content"]] == ["rain", "boats"]
    turn = answer_in([event, _completed("small boats")])
    assert [part["text"] for part in turn["content"]] == ["small boats"]


def test_an_answer_may_end_with_an_error() -> None:
    """What came before it is read."""
    part = _event("response.output_text.delta", delta="boats")
    turn = answer_in([part, _event("error", message="too long")])
    assert [one["text"] for one in turn["content"]] == ["boats", "too long"]


def test_a_long_answer_takes_a_time_that_grows_with_its_length() -> None:
    """Also if its end repeats no part of it."""
    parts = [
        _event("response.output_text.delta", item_id=f"{i}", delta=f"text {i}")
        for i in range(20_000)
    ]
    began = time.process_time()
    turn = answer_in([*parts, _completed("rain")])
    assert len(turn["content"]) == 20_001
    assert time.process_time() - began < 3
