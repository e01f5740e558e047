"""Middleware for agents of LangChain.

    agent = create_agent(model, middleware=[GuardMiddleware("guard/")])

The conversation is checked before each call of the model, tool results included, and again with
the model's answer. The agent then ends with a refusal. A flagged answer is replaced by the refusal,
so its tool calls do not run. The agent's ``system_prompt`` is not part of the conversation.
"""

from functools import partial
from pathlib import Path
from typing import Any

from layerguard.integrations.gate import REFUSAL, Decision, Gate
from layerguard.runtime import Guard, Verdict

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
    from langchain_core.messages import AIMessage, convert_to_openai_messages
except ImportError as error:
    raise ImportError(
        "layerguard.integrations.langchain needs LangChain 1.0 or later; "
        "run: pip install 'langchain>=1.0'"
    ) from error


class GuardMiddleware(AgentMiddleware):
    """Ends a run whose conversation is flagged, or on which there is no verdict."""

    def __init__(self, guard: Guard | str | Path, *, refusal: str = REFUSAL) -> None:
        """Keep the guard.

        Args:
            guard: a guard or a bundle; see ``Gate``.
            refusal: the agent's answer in place of a flagged text.

        Raises:
            BundleError: as ``Guard.load``.
            MachineError: as ``Guard.load``.
        """
        super().__init__()
        self._gate, self._refusal = Gate(guard), refusal

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Check the conversation; a refusal follows it."""
        return self._refused(self._gate.decide(partial(_check, state)))

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Like ``before_model``, in a thread."""
        return self._refused(await self._gate.adecide(partial(_check, state)))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Check the conversation with the answer; a refusal takes the answer's place."""
        decision = self._gate.decide(partial(_check, state))
        return self._refused(decision, state["messages"][-1].id)

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Like ``after_model``, in a thread."""
        decision = await self._gate.adecide(partial(_check, state))
        return self._refused(decision, state["messages"][-1].id)

    def _refused(self, decision: Decision, replaced: str | None = None) -> dict[str, Any] | None:
        """The end of the run if the decision blocks; a message of the same id is replaced."""
        if not decision.blocked:
            return None
        return {"messages": [AIMessage(self._refusal, id=replaced)], "jump_to": "end"}


def _check(state: AgentState[Any], guard: Guard) -> Verdict:
    """Check the conversation in OpenAI's form; content that is not text stays, and is refused."""
    return guard.check(messages=convert_to_openai_messages(state["messages"]))
