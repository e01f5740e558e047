"""The guardrails in agents of the OpenAI Agents SDK, with its scripted model."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.integrations import page
from tests.integrations.bundles import Texts

pytest.importorskip("agents", reason="needs the OpenAI Agents SDK: run `make integrations`")
from agents import (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    Runner,
    set_tracing_disabled,
)
from agents.testing import ScriptedModel, assistant_message

set_tracing_disabled(disabled=True)


def _agent(*answers: str) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel([[assistant_message(answer)] for answer in answers])
    return page.run("OpenAI Agents SDK", model=model)["agent"], model


def _run(agent: Any, asked: Any) -> Any:
    return asyncio.run(Runner.run(agent, asked)).final_output


def test_passes_a_harmless_run(said: Texts) -> None:
    """The user gets the model's answer."""
    agent, _ = _agent(said.answer)
    assert _run(agent, said.harmless) == said.answer


def test_blocks_a_flagged_input(said: Texts) -> None:
    """Before the model is called; the exception brings the verdict."""
    agent, model = _agent(said.answer)
    with pytest.raises(InputGuardrailTripwireTriggered) as caught:
        _run(agent, said.flagged)
    assert model.calls == ()
    assert caught.value.guardrail_result.output.output_info.verdict.flagged


def test_blocks_a_flagged_output(said: Texts) -> None:
    """The exception brings the verdict."""
    agent, _ = _agent(said.flagged_answer)
    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        _run(agent, said.harmless)
    assert caught.value.guardrail_result.output.output_info.verdict.flagged


def test_blocks_a_flagged_item_of_a_list(said: Texts) -> None:
    """Messages with parts, calls of functions and their results are read."""
    agent, model = _agent(said.answer)
    call = {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}
    asked = [
        {"role": "user", "content": [{"type": "input_text", "text": said.harmless}]},
        call,
        {"type": "function_call_output", "call_id": "1", "output": said.flagged},
    ]
    with pytest.raises(InputGuardrailTripwireTriggered):
        _run(agent, asked)
    assert model.calls == ()


def test_fails_closed_where_the_guard_raises(said: Texts, break_guard: Callable[[], None]) -> None:
    """The tripwire brings the error."""
    agent, model = _agent(said.answer)
    break_guard()
    with pytest.raises(InputGuardrailTripwireTriggered) as caught:
        _run(agent, said.harmless)
    assert isinstance(caught.value.guardrail_result.output.output_info.error, RuntimeError)
    assert model.calls == ()


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]},
        {"type": "item_reference", "id": "1"},
    ],
)
def test_fails_closed_on_an_item_that_cannot_be_read(said: Texts, item: Any) -> None:
    """An image, or a reference to an item that is elsewhere."""
    agent, model = _agent(said.answer)
    with pytest.raises(InputGuardrailTripwireTriggered):
        _run(agent, [item])
    assert model.calls == ()
