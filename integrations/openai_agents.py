"""Guardrails for agents of the OpenAI Agents SDK.

    agent = Agent(
        "assistant",
        input_guardrails=[input_guardrail("guard/")],
        output_guardrails=[output_guardrail("guard/")],
    )

A flagged text ends the run with ``InputGuardrailTripwireTriggered`` or
``OutputGuardrailTripwireTriggered``; so does an error of the guard. The input guardrail runs before
the agent, not beside it. The SDK asks it about the input of the first agent, and the output
guardrail about the final output; results of tools are read by neither.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerguard.integrations.gate import Gate
from layerguard.runtime import Guard, Verdict

try:
    from agents import GuardrailFunctionOutput, InputGuardrail, OutputGuardrail
    from agents.models.chatcmpl_converter import Converter
except ImportError as error:
    raise ImportError(
        "layerguard.integrations.openai_agents needs the OpenAI Agents SDK; "
        "run: pip install openai-agents"
    ) from error

_NAME = "layerguard"


def input_guardrail(guard: Guard | str | Path) -> InputGuardrail[Any]:
    """A guardrail that checks what an agent is asked; ``guard`` as ``Gate`` takes it."""
    gate = Gate(guard)

    async def check(context: Any, agent: Any, asked: str | list[Any]) -> GuardrailFunctionOutput:
        decision = await gate.adecide(lambda guard: guard.check(messages=_turns(asked)))
        return GuardrailFunctionOutput(decision, tripwire_triggered=decision.blocked)

    return InputGuardrail(check, name=_NAME, run_in_parallel=False)


def output_guardrail(guard: Guard | str | Path) -> OutputGuardrail[Any]:
    """A guardrail that checks an agent's final output with the input of its last turn."""
    gate = Gate(guard)

    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        def ask(guard: Guard) -> Verdict:
            answer = {"role": "assistant", "content": _text(output)}
            return guard.check(messages=[*_turns(context.turn_input), answer])

        decision = await gate.adecide(ask)
        return GuardrailFunctionOutput(decision, tripwire_triggered=decision.blocked)

    return OutputGuardrail(check, name=_NAME)


def _text(output: Any) -> str:
    """The output as text; one of another type as JSON."""
    if isinstance(output, str):
        return output
    if hasattr(output, "model_dump_json"):
        return str(output.model_dump_json())
    return json.dumps(output, ensure_ascii=False, default=str)


def _turns(items: str | Sequence[Any]) -> list[Any]:
    """Items of the Responses API as chat turns, as the SDK gives them to a chat model.

    Images and files stay, and are refused by the guard.

    Raises:
        UserError: an item has no form in a chat, such as a reference to another item.
    """
    turns: list[Any] = Converter.items_to_messages(
        items, preserve_tool_output_all_content=True, strict_feature_validation=True
    )
    return turns
