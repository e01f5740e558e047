"""The check in OpenAI Guardrails, and in its client with answers from a transport of the test."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integrations import page
from tests.integrations.bundles import Texts

pytest.importorskip("guardrails", reason="needs OpenAI Guardrails: run `make integrations`")
import httpx
from guardrails import GuardrailsAsyncOpenAI, GuardrailTripwireTriggered
from guardrails.registry import default_spec_registry


@pytest.fixture
def check() -> Iterator[Callable[[str], Any]]:
    """The function of the page, run to its end."""
    names = page.run("OpenAI Guardrails")
    yield lambda text: asyncio.run(names["check"](text))
    default_spec_registry.remove("LayerGuard")


def test_passes_a_harmless_text(check: Callable[[str], Any], said: Texts) -> None:
    """With the guard's reason in the result."""
    (result,) = check(said.harmless)
    assert not result.tripwire_triggered
    assert not result.execution_failed
    assert result.info["reason"]


def test_blocks_a_flagged_text(check: Callable[[str], Any], said: Texts) -> None:
    """The tripwire is triggered."""
    with pytest.raises(GuardrailTripwireTriggered):
        check(said.flagged)


def test_fails_closed_where_the_guard_raises(
    check: Callable[[str], Any], said: Texts, break_guard: Callable[[], None]
) -> None:
    """Though the framework lets a text pass if a check raises."""
    break_guard()
    with pytest.raises(GuardrailTripwireTriggered) as caught:
        check(said.harmless)
    assert isinstance(caught.value.guardrail_result.original_exception, RuntimeError)


def _asked(prompt: str, answer: str) -> tuple[Any, list[httpx.Request]]:
    """What the framework's client gives, and the requests that reached the model."""
    reached: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        reached.append(request)
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        return httpx.Response(200, json=body | {"choices": [choice]})

    async def run() -> Any:
        stage = {"version": 1, "guardrails": [{"name": "LayerGuard", "config": {}}]}
        client = GuardrailsAsyncOpenAI(
            config={"version": 1, "input": stage, "output": stage},
            api_key="none",
            base_url="http://model.test/v1",
            http_client=httpx.AsyncClient(transport=httpx.MockTransport(respond)),
        )
        messages = [{"role": "user", "content": prompt}]
        return await client.chat.completions.create(model="m", messages=messages)

    try:
        return asyncio.run(run()), reached
    except GuardrailTripwireTriggered as error:
        return error, reached


@pytest.mark.usefixtures("check")
def test_passes_a_harmless_chat_of_the_client(said: Texts) -> None:
    """The answer is the model's."""
    answer, _ = _asked(said.harmless, said.answer)
    assert answer.choices[0].message.content == said.answer


@pytest.mark.usefixtures("check")
def test_blocks_a_flagged_answer_of_the_client(said: Texts) -> None:
    """In the stage of the output."""
    answer, reached = _asked(said.harmless, said.flagged_answer)
    assert isinstance(answer, GuardrailTripwireTriggered)
    assert len(reached) == 1
