"""Chats of any turns: streams, whole and asynchronous, give the verdict of ``check``."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.runtime import Guard, Verdict
from tests import tiny
from tests.runtime.streaming.cases import same
from tests.runtime.streaming.test_chats import TEMPLATE
from tests.tiny_decoder import make_bundle

_TEXT = st.sampled_from(["low hills", "boats", "", " ", "rain came over", "<s>", "雨"])
_PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT}, optional={"note": _TEXT}),
    st.fixed_dictionaries({"type": st.just("document"), "body": _TEXT}),
)
_CONTENT = _TEXT | st.lists(_PART, min_size=1, max_size=3)
_CALL = st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": _TEXT})})
_TURN = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": _CONTENT}),
    st.fixed_dictionaries({"role": st.just("tool"), "content": _TEXT}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": _CONTENT},
        optional={"tool_calls": st.lists(_CALL, max_size=2), "name": _TEXT},
    ),
)
_TOOLS = st.none() | st.lists(st.fixed_dictionaries({"name": _TEXT}), max_size=2)
_CHAT = st.lists(_TURN, min_size=1, max_size=5)


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def chat(folder: Path, request: pytest.FixtureRequest) -> Guard:
    """A guard that continues from a cache, and one that reads all again."""
    path = folder / f"any_{request.param}"
    if request.param == "encoder":
        return Guard.load(tiny.make_bundle(path), threads=1)
    return Guard.load(make_bundle(path, template="chat", chat_template=TEMPLATE), threads=1)


@settings(max_examples=40)
@given(turns=_CHAT, tools=_TOOLS, pushed=st.lists(_TEXT, max_size=3))
def test_a_stream_begins_and_ends_as_check(
    chat: Guard, turns: list[dict[str, Any]], tools: Any, pushed: list[str]
) -> None:
    """What the last turn holds beside its text is read to the end."""
    begun = chat.check(messages=turns, tools=tools)
    with chat.stream(messages=turns, tools=tools) as stream:
        _same(stream.verdict, begun)
        for one in pushed:
            stream.push(one)
        found = stream.finish()
    _same(chat.check_batch([{"messages": turns, "tools": tools}])[0], begun)
    _same(asyncio.run(_streamed(chat, turns, tools, pushed)), found)
    answer = "".join(pushed)
    if len(turns) > 1 and turns[-1]["role"] == "assistant":
        if not isinstance(turns[-1]["content"], str):
            return
        turns = [*turns[:-1], {**turns[-1], "content": turns[-1]["content"] + answer}]
    elif answer:
        turns = [*turns, {"role": "assistant", "content": answer}]
    _same(found, chat.check(messages=turns, tools=tools))


def _same(found: Verdict, expected: Verdict) -> None:
    """The windows of the toy encoder are short."""
    assert found.truncated == expected.truncated
    same(replace(found, truncated=False), expected)


async def _streamed(guard: Guard, turns: Any, tools: Any, pushed: list[str]) -> Verdict:
    async with guard.astream(messages=turns, tools=tools) as stream:
        for one in pushed:
            await stream.push(one)
        return await stream.finish()
