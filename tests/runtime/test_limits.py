"""The largest request that a guard reads."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import BundleError, Guard, InputError, Limits
from layerguard.runtime.limits import NO_LIMITS
from layerguard.runtime.text.measure import longest_allowed, shortened, text_lengths
from layerguard.runtime.text.request import Request, request
from tests.runtime.tamper import edit_manifest

_TURN = {"role": "user", "content": "the garden"}


def _deep(levels: int) -> Any:
    value: Any = "a"
    for _ in range(levels):
        value = [value]
    return value


_TOO_MUCH: dict[str, tuple[Limits, dict[str, Any], str]] = {
    "messages": (Limits(messages=2), {"messages": [_TURN] * 3}, "more than 2 messages"),
    "tools": (Limits(tools=1), {"messages": [_TURN], "tools": [{}, {}]}, "more than 1 tools"),
    "parts": (
        Limits(parts=9),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 10}]},
        "more than 9 values in messages and tools",
    ),
    "parts of tools": (
        Limits(parts=9),
        {"messages": [_TURN], "tools": [{"parameters": dict.fromkeys("abcdefghij", 1)}]},
        "more than 9 values in messages and tools",
    ),
    "depth": (
        Limits(depth=5),
        {"messages": [{**_TURN, "extra": _deep(9)}]},
        "more than 5 levels of lists and objects",
    ),
    "characters": (
        Limits(characters=8, beyond="refuse"),
        {"text": "the garden"},
        "found 10 characters; expected at most 8",
    ),
    "characters of a pair": (
        Limits(characters=8, beyond="refuse"),
        {"prompt": "the g", "response": "arden"},
        "found 10 characters",
    ),
    "characters of a chat": (
        Limits(characters=20, beyond="refuse"),
        {"messages": [_TURN, _TURN]},
        "characters; expected at most 20",
    ),
    "tokens": (
        Limits(tokens=8, beyond="refuse"),
        {"text": "the garden was quiet before rain came"},
        "more than 8 tokens",
    ),
}


@pytest.mark.parametrize("case", _TOO_MUCH)
def test_too_much_is_refused(sound: Path, case: str) -> None:
    """One sentence says what there is too much of, how much is allowed, and what to do."""
    limits, arguments, words = _TOO_MUCH[case]
    guard = Guard.load(sound, threads=1, limits=limits)
    with pytest.raises(InputError, match=words) as caught:
        guard.check(**arguments)
    assert "limits=Limits(" in str(caught.value)
    with pytest.raises(InputError, match=words):  # a row of a file has no limits of its own
        guard.check_requests([request(**arguments)])
    with pytest.raises(InputError, match=words):
        guard.stream(**arguments)


def test_what_is_within_the_limits_is_read_as_before(sound: Path, guard: Guard) -> None:
    """Limits that are just large enough change nothing."""
    narrow = Limits(characters=38, messages=2, parts=4, tools=1, depth=1, tokens=14)
    strict = Guard.load(sound, threads=1, limits=narrow)
    messages = [{"role": "user", "content": "rain"}] * 2
    mine, theirs = strict.check(messages=messages), guard.check(messages=messages)
    assert mine.readings == theirs.readings
    assert not mine.truncated


def test_a_long_text_is_read_head_and_tail(sound: Path) -> None:
    """The verdict says that a part was not read."""
    guard = Guard.load(sound, threads=1, limits=Limits(characters=21))
    verdict = guard.check("the garden" + " was" * 1000 + " low hills")
    assert verdict.truncated
    assert verdict.readings == guard.check("the garden \nlow hills").readings
    assert not guard.check("the garden").truncated


def test_a_stream_on_a_long_prompt_says_that_it_is_truncated(sound: Path) -> None:
    """Its verdict is the one of a check."""
    guard = Guard.load(sound, threads=1, limits=Limits(characters=21))
    with guard.stream(prompt="the garden" + " was" * 1000) as stream:
        assert stream.verdict.truncated


def test_the_shortest_texts_of_a_chat_stay_whole() -> None:
    """Only the longest one is shortened."""
    messages = [{"role": "user", "content": "a" * 500 + "b" * 500}, _TURN]
    one = request(messages=messages, limits=Limits(characters=100))
    assert one.messages is not None
    assert one.is_cut
    assert one.messages[1] == _TURN
    content = one.messages[0]["content"]
    assert content.startswith("aaa")
    assert content.endswith("bbb")
    assert sum(text_lengths(one.messages, NO_LIMITS)) <= 100


@given(lengths=st.lists(st.integers(0, 50), min_size=1), most=st.integers(1, 400))
def test_texts_are_shortened_no_more_than_needed(lengths: list[int], most: int) -> None:
    """Together they are within the limit, and one more character each would not be."""
    length = longest_allowed(lengths, Limits(characters=most))
    if length is None:
        assert sum(lengths) <= most
        return
    assert sum(min(each, length) for each in lengths) <= most
    assert sum(min(each, length + 1) for each in lengths) > most


@given(text=st.text(max_size=40), length=st.integers(0, 40))
def test_a_shortened_text_has_its_start_and_its_end(text: str, length: int) -> None:
    """Half of each, and no more characters than allowed."""
    found = shortened(text, length)
    assert len(found) <= length or found == text
    if len(text) > length > 3:  # of three characters none is of the end
        head, tail = found.split("\n", 1) if "\n" not in text else (found[:1], found[-1:])
        assert text.startswith(head)
        assert text.endswith(tail)


def test_limits_that_allow_nothing_are_refused() -> None:
    """Every wrong number is named."""
    with pytest.raises(InputError, match="found characters 0, tokens 'a'; expected whole numbers"):
        Limits(characters=0, tokens="a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="beyond 'cut'; expected truncate or refuse"):
        Limits(beyond="cut")  # type: ignore[arg-type]


def test_a_bundle_carries_limits(bundle: Path) -> None:
    """They hold unless the guard is loaded with others, and travel with a pickled guard."""
    edit_manifest(bundle, lambda value: value["text"].update(limits=_card(messages=1)))
    guard = Guard.load(bundle, threads=1)
    with pytest.raises(InputError, match="more than 1 messages"):
        guard.check(messages=[_TURN, _TURN])
    wide = Guard.load(bundle, threads=1, limits=Limits())
    assert wide.check(messages=[_TURN, _TURN]).status == "ok"
    assert pickle.loads(pickle.dumps(wide)).limits == Limits()


def test_wrong_limits_of_a_bundle_are_a_fault(bundle: Path) -> None:
    """They are named by their place in the manifest."""
    edit_manifest(bundle, lambda value: value["text"].update(limits=_card(messages=0)))
    with pytest.raises(BundleError, match=r"text\.limits: limits: found messages 0"):
        Guard.load(bundle)


def _card(**changed: int) -> dict[str, Any]:
    return {**dataclasses.asdict(Limits()), **changed}


def test_a_request_within_the_limits_is_not_measured_again() -> None:
    """Once for each guard that reads it."""
    one = request("the garden", limits=Limits())
    assert one.within(Limits()) is one
    assert one.within(Limits(characters=5)).prompt != one.prompt
    assert Request("the garden").limits is None
