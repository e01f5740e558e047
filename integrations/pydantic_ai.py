"""A capability for agents of Pydantic AI.

    agent = Agent(model, capabilities=[GuardCapability("guard/")])

The conversation is checked before each call of the model, with instructions and tool results, and
again with the model's answer. If it is flagged, or the guard fails, the model's answer is a refusal
in its place: the model is not called, or its tool calls do not run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerguard.integrations.gate import REFUSAL, Gate
from layerguard.runtime import Guard, InputError, Verdict

try:
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.exceptions import SkipModelRequest
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
    from pydantic_ai.models import ModelRequestContext
except ImportError as error:
    raise ImportError(
        "layerguard.integrations.pydantic_ai needs Pydantic AI 2 or later; "
        "run: pip install 'pydantic-ai-slim>=2'"
    ) from error


@dataclass
class GuardCapability(AbstractCapability[Any]):
    """Puts a refusal in the place of each answer that is not allowed.

    Attributes:
        guard: a guard or a bundle; see ``Gate``.
        refusal: the model's answer in place of a flagged text.
    """

    guard: Guard | str | Path
    refusal: str = REFUSAL

    def __post_init__(self) -> None:
        """Load the guard.

        Raises:
            BundleError: as ``Guard.load``.
            MachineError: as ``Guard.load``.
        """
        self._gate = Gate(self.guard)

    async def before_model_request(
        self, ctx: Any, request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Check the conversation.

        Raises:
            SkipModelRequest: it may not reach the model; it brings the refusal.
        """
        if await self._blocks(request_context.messages):
            raise SkipModelRequest(ModelResponse([TextPart(self.refusal)]))
        return request_context

    async def after_model_request(
        self, ctx: Any, *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Check the conversation with the answer; the answer, or a refusal."""
        if await self._blocks([*request_context.messages, response]):
            return replace(response, parts=[TextPart(self.refusal)])
        return response

    async def _blocks(self, messages: Sequence[ModelMessage]) -> bool:
        def ask(guard: Guard) -> Verdict:
            return guard.check(messages=_conversation(messages))

        return (await self._gate.adecide(ask)).blocked


_UNREADABLE = {"type": "file"}
"""An image, a sound or a file: the guard says that it cannot read it."""


def _conversation(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """The messages in OpenAI's form, after the latest instructions, as a model gets them.

    Content that is not text is a part that the guard cannot read.

    Raises:
        InputError: a part is of a kind that the guard cannot read.
    """
    instructions = [m.instructions for m in messages if m.kind == "request" and m.instructions]
    turns = [{"role": "system", "content": text} for text in instructions[-1:]]
    for message in messages:
        if message.kind == "response":
            turns.append(_answer(message))
        else:
            turns += [_turn(part) for part in message.parts]
    return turns


def _turn(part: Any) -> dict[str, Any]:
    """A part of a request."""
    kind = part.part_kind
    if kind == "system-prompt":
        return {"role": "system", "content": part.content}
    if kind == "user-prompt":
        return {"role": "user", "content": _content(part.content)}
    if kind == "tool-return":
        files = [_UNREADABLE] * len(part.files)
        text = {"type": "text", "text": part.model_response_str()}
        return {"role": "tool", "content": [text, *files], "tool_call_id": part.tool_call_id}
    if kind in ("retry-prompt", "retry-feedback"):
        return {"role": "user", "content": part.model_response()}
    raise _unknown(kind)


def _answer(response: ModelResponse) -> dict[str, Any]:
    """A response as one turn: its texts and its calls of tools."""
    texts, calls = [], []
    for part in response.parts:
        kind = part.part_kind
        if kind in ("text", "thinking"):
            texts.append(part.content)
        elif kind == "builtin-tool-return":
            texts.append(part.model_response_str())
        elif kind in ("tool-call", "builtin-tool-call"):
            function = {"name": part.tool_name, "arguments": part.args_as_json_str()}
            calls.append({"id": part.tool_call_id, "type": "function", "function": function})
        else:
            raise _unknown(kind)
    turn: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    return {**turn, "tool_calls": calls} if calls else turn


def _unknown(kind: str) -> InputError:
    return InputError(f"found a part of kind {kind!r}; expected text, or calls of tools")


def _content(content: Any) -> Any:
    """The content of a user's prompt in OpenAI's form; marks of the cache hold no text."""
    if isinstance(content, str):
        return content
    return [_part(item) for item in content if getattr(item, "kind", "") != "cache-point"]


def _part(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    known = item.kind in ("text-content", "structured-content")
    return {"type": "text", "text": item.content} if known else _UNREADABLE
