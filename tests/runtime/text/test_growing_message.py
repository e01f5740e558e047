"""Messages that come in parts: any cut gives the whole message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of, text_in

_TEXT = st.text("ab {}", max_size=6)


@given(st.lists(_TEXT), st.lists(_TEXT), st.lists(_TEXT))
def test_any_cut_gives_the_whole_message(texts: list[str], first: list[str], second: Any) -> None:
    """Two calls, whose parts come in turn."""
    message = GrowingMessage()
    said = [message.add({"content": text}) for text in texts]
    for index, parts in enumerate((first, second)):
        message.add({"tool_calls": [{"index": index, "id": f"{index}", "function": {"name": "a"}}]})
        for part in parts:
            message.add({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    whole = message.message()
    assert whole["content"] == "".join(said) == "".join(texts)
    arguments = [call["function"].get("arguments", "") for call in whole["tool_calls"]]
    assert arguments == ["".join(first), "".join(second)]
    assert [call["id"] for call in whole["tool_calls"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("names", "whole"),
    [(["look", "look"], "look"), (["lo", "ok"], "look"), (["look", None], "look")],
)
def test_a_name_is_repeated_or_comes_in_parts(names: list[str | None], whole: str) -> None:
    """Servers do either."""
    message = GrowingMessage()
    for name in names:
        message.add({"tool_calls": [{"index": 0, "function": {"name": name}}]})
    assert message.calls[0]["function"]["name"] == whole


def test_the_deltas_that_were_given_stay_as_they_are() -> None:
    """A caller may use them again."""
    delta = {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}
    message = GrowingMessage()
    message.add(delta)
    message.add({"tool_calls": [{"index": 0, "function": {"arguments": "b"}}]})
    assert delta == {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}


def test_a_legacy_call_and_a_custom_tool_grow() -> None:
    """They have their arguments in other places."""
    message = GrowingMessage()
    for part in ("a", "b"):
        message.add({"function_call": {"arguments": part}})
        message.add({"tool_calls": [{"index": 1, "custom": {"input": part}}]})
    assert message.calls[0]["function"]["arguments"] == "ab"
    assert message.calls[1]["custom"]["input"] == "ab"


def test_all_texts_of_a_choice_are_read() -> None:
    """Those of its delta, and its own."""
    choice = {"text": "a", "delta": {"content": "b", "reasoning": "c"}}
    assert sorted(text_in(parts_of(choice)).split("\n")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "deltas",
    [
        [{"content": 1}],
        [{"audio": {"id": "1"}}],
        [{"tool_calls": "a"}],
        [{"tool_calls": [{"index": "a"}]}],
        [{"tool_calls": [{"function": {}}]}, {"tool_calls": [{"function": "a"}]}],
    ],
)
def test_what_cannot_be_read_is_refused(deltas: list[Any]) -> None:
    """With a sentence, not with Python's error."""
    *earlier, last = deltas
    message = GrowingMessage()
    for delta in earlier:
        message.add(delta)
    with pytest.raises(InputError):
        message.add(last)


def test_parts_of_members_that_no_interface_defines_are_kept() -> None:
    """Some servers give two calls one index, or arguments as objects."""
    message = GrowingMessage()
    for word in ("rain", "boats"):
        function = {"arguments": {"place": word}, "notes": [word]}
        call = {"index": 0, "id": word, "function": function, "thought": word}
        message.add({"tool_calls": [call]})
    (call,) = message.message()["tool_calls"]
    assert call["function"] == {"arguments": {"place": "rainboats"}, "notes": ["rain", "boats"]}
    assert (call["thought"], call["id"]) == ("rainboats", "rain")
