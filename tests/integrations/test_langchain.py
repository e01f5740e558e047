"""The middleware in agents of LangChain, with models that say what a test wants."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from layerguard.integrations.gate import REFUSAL
from tests.integrations import page
from tests.integrations.bundles import Texts

pytest.importorskip("langchain", reason="needs LangChain: run `make integrations`")
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall

from layerguard.integrations.langchain import GuardMiddleware


class Model(GenericFakeChatModel):
    """Says its messages, one a call, with or without tools."""

    def bind_tools(self, *_: Any, **__: Any) -> "Model":
        """This model; it has its tool calls already."""
        return self


def _agent(*answers: str | AIMessage) -> tuple[Any, list[AIMessage]]:
    """The agent of the page, and the answers that its model still has."""
    left: list[AIMessage] = []
    agent = page.run("LangChain", model=Model(messages=_popped(left)))["agent"]
    left[:] = [a if isinstance(a, AIMessage) else AIMessage(a) for a in answers]
    return agent, left


def _popped(left: list[AIMessage]) -> Any:
    while True:
        yield left.pop(0) if left else AIMessage("none is left")


def _asked(agent: Any, text: str) -> list[Any]:
    messages: list[Any] = agent.invoke({"messages": [("user", text)]})["messages"]
    return messages


def test_passes_a_harmless_conversation(said: Texts) -> None:
    """The user gets the model's answer."""
    agent, _ = _agent(said.answer)
    assert [m.content for m in _asked(agent, said.harmless)] == [said.harmless, said.answer]


def test_blocks_a_flagged_prompt(said: Texts) -> None:
    """The model is not called, and the refusal ends the run."""
    agent, left = _agent(said.answer)
    assert [m.content for m in _asked(agent, said.flagged)] == [said.flagged, REFUSAL]
    assert len(left) == 1


def test_blocks_a_flagged_answer(said: Texts) -> None:
    """The refusal takes its place; the answer is nowhere in the state."""
    agent, _ = _agent(said.flagged_answer)
    assert [m.content for m in _asked(agent, said.harmless)] == [said.harmless, REFUSAL]


def test_blocks_the_tool_calls_of_a_flagged_answer(said: Texts) -> None:
    """The tool does not run."""
    ran = []

    def tool() -> str:
        """A tool."""
        ran.append(1)
        return said.answer

    call = ToolCall(name="tool", args={}, id="1")
    model = Model(messages=iter([AIMessage(said.flagged_answer, tool_calls=[call])]))
    agent = create_agent(model, [tool], middleware=[GuardMiddleware("guard/")])
    assert _asked(agent, said.harmless)[-1].content == REFUSAL
    assert ran == []


def test_blocks_a_flagged_tool_result(said: Texts) -> None:
    """It is part of the conversation before the model's next call."""

    def tool() -> str:
        """A tool."""
        return said.flagged_answer

    call = ToolCall(name="tool", args={}, id="1")
    answers = [AIMessage("", tool_calls=[call]), AIMessage(said.answer)]
    agent = create_agent(
        Model(messages=iter(answers)), [tool], middleware=[GuardMiddleware("guard/")]
    )
    messages = _asked(agent, said.harmless)
    assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
    assert messages[-1].content == REFUSAL


def test_blocks_under_asyncio(said: Texts) -> None:
    """Prompt and answer, in eight runs at once, each with its own answer."""
    agent = create_agent(
        Model(messages=iter([AIMessage(said.answer)] * 4)),
        middleware=[GuardMiddleware("guard/")],
    )

    async def runs() -> list[str]:
        asked = [{"messages": [("user", t)]} for t in [said.harmless, said.flagged] * 4]
        states = await asyncio.gather(*(agent.ainvoke(one) for one in asked))
        return [state["messages"][-1].content for state in states]

    assert asyncio.run(runs()) == [said.answer, REFUSAL] * 4


def test_fails_closed_where_the_guard_raises(said: Texts, break_guard: Callable[[], None]) -> None:
    """The model is not called."""
    agent, left = _agent(said.answer)
    break_guard()
    assert _asked(agent, said.harmless)[-1].content == REFUSAL
    assert len(left) == 1


def test_fails_closed_on_an_image(said: Texts) -> None:
    """The guard cannot read it, so the model does not see it."""
    agent, left = _agent(said.answer)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    state = agent.invoke({"messages": [{"role": "user", "content": [image]}]})
    assert state["messages"][-1].content == REFUSAL
    assert len(left) == 1
