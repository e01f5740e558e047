"""The capability in agents of Pydantic AI, with its function model."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from layerguard.integrations.gate import REFUSAL
from tests.integrations import page
from tests.integrations.bundles import Texts

pytest.importorskip("pydantic_ai", reason="needs Pydantic AI: run `make integrations`")
from pydantic_ai import Agent, BinaryContent, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from layerguard.integrations.pydantic_ai import GuardCapability
from layerguard.runtime import Guard


class Script:
    """A model that gives its responses one by one, and notes how often it was called."""

    def __init__(self, *responses: str | ModelResponse) -> None:
        self.responses = list(responses)
        self.calls = 0
        self.model = FunctionModel(self._respond)

    def _respond(self, *_: Any) -> ModelResponse:
        self.calls += 1
        response = self.responses.pop(0) if self.responses else ""
        parts = [TextPart(response)] if isinstance(response, str) else response.parts
        return ModelResponse(parts)


def _agent(*responses: str) -> tuple[Any, Script]:
    """The agent of the page, and its model; the page asks it once."""
    script = Script("rain")
    agent = page.run("Pydantic AI", model=script.model)["agent"]
    script.responses, script.calls = list(responses), 0
    return agent, script


def test_passes_a_harmless_run(said: Texts) -> None:
    """The user gets the model's answer."""
    agent, _ = _agent(said.answer)
    assert agent.run_sync(said.harmless).output == said.answer


def test_blocks_a_flagged_prompt(said: Texts) -> None:
    """The model is not called."""
    agent, script = _agent(said.answer)
    assert agent.run_sync(said.flagged).output == REFUSAL
    assert script.calls == 0


def test_blocks_a_flagged_answer(said: Texts) -> None:
    """The refusal takes its place, in the history too."""
    agent, _ = _agent(said.flagged_answer)
    result = agent.run_sync(said.harmless)
    assert result.output == REFUSAL
    assert said.flagged_answer not in str(result.all_messages())


def test_blocks_flagged_instructions(said: Texts) -> None:
    """They are a turn of the system."""
    script = Script(said.answer)
    agent = Agent(script.model, instructions=said.flagged, capabilities=[GuardCapability("guard/")])
    assert agent.run_sync("a").output == REFUSAL
    assert script.calls == 0


def test_passes_turns_as_a_model_gets_them(said: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest instructions once; text and calls of one answer in one turn."""
    checked: list[Any] = []
    check = Guard.check

    def noted(self: Guard, **named: Any) -> Any:
        checked.append(named["messages"])
        return check(self, **named)

    call = ModelResponse([TextPart(said.answer), ToolCallPart("tool", {"times": 1}, "1")])
    agent = Agent(
        Script(call, said.answer).model,
        instructions=said.harmless,
        capabilities=[GuardCapability("guard/")],
    )
    agent.tool_plain(lambda times: said.answer * times, name="tool")
    monkeypatch.setattr(Guard, "check", noted)
    agent.run_sync(said.harmless)
    function = {"name": "tool", "arguments": '{"times":1}'}
    calls = [{"id": "1", "type": "function", "function": function}]
    result = {"type": "text", "text": said.answer}
    assert checked[-1] == [
        {"role": "system", "content": said.harmless},
        {"role": "user", "content": said.harmless},
        {"role": "assistant", "content": said.answer, "tool_calls": calls},
        {"role": "tool", "content": [result], "tool_call_id": "1"},
        {"role": "assistant", "content": said.answer},
    ]


def test_blocks_a_flagged_tool_result(said: Texts) -> None:
    """The model is called once, for the tool, and not again."""
    script = Script(ModelResponse([ToolCallPart("tool", {})]), said.answer)
    agent = Agent(script.model, capabilities=[GuardCapability("guard/")])

    @agent.tool_plain
    def tool() -> str:
        return said.flagged_answer

    assert agent.run_sync(said.harmless).output == REFUSAL
    assert script.calls == 1


def test_blocks_the_tool_calls_of_a_flagged_answer(said: Texts) -> None:
    """The tool does not run."""
    ran = []
    answer = ModelResponse([TextPart(said.flagged_answer), ToolCallPart("tool", {})])
    agent = Agent(Script(answer).model, capabilities=[GuardCapability("guard/")])

    @agent.tool_plain
    def tool() -> str:
        ran.append(1)
        return said.answer

    assert agent.run_sync(said.harmless).output == REFUSAL
    assert ran == []


def test_blocks_only_its_own_run(said: Texts) -> None:
    """Eight runs at once, each with its own answer."""
    script = Script(*[said.answer] * 4)
    agent = Agent(script.model, capabilities=[GuardCapability("guard/")])

    async def runs() -> list[str]:
        asked = [said.harmless, said.flagged] * 4
        return [one.output for one in await asyncio.gather(*map(agent.run, asked))]

    assert asyncio.run(runs()) == [said.answer, REFUSAL] * 4


def test_fails_closed_where_the_guard_raises(said: Texts, break_guard: Callable[[], None]) -> None:
    """The model is not called."""
    agent, script = _agent(said.answer)
    break_guard()
    assert agent.run_sync(said.harmless).output == REFUSAL
    assert script.calls == 0


def test_fails_closed_on_an_image(said: Texts) -> None:
    """The guard cannot read it, so the model does not see it."""
    agent, script = _agent(said.answer)
    asked = [said.harmless, BinaryContent(b"image", media_type="image/png")]
    assert agent.run_sync(asked).output == REFUSAL
    assert script.calls == 0


def test_fails_closed_on_an_image_of_a_tool(said: Texts) -> None:
    """The model is called once, for the tool, and does not see the image."""
    script = Script(ModelResponse([ToolCallPart("tool", {})]), said.answer)
    agent = Agent(script.model, capabilities=[GuardCapability("guard/")])

    @agent.tool_plain
    def tool() -> BinaryContent:
        return BinaryContent(b"image", media_type="image/png")

    assert agent.run_sync(said.harmless).output == REFUSAL
    assert script.calls == 1
