"""A guardrail for LiteLLM, its proxy and its SDK.

    guardrails:
      - guardrail_name: layerguard
        litellm_params:
          guardrail: layerguard.integrations.litellm.LayerGuardGuardrail
          mode: [pre_call, post_call]
          default_on: true
          guard: guard/

A flagged text is refused with status 400, an error of the guard with status 503. Chunks of a
streamed answer are held back until they are checked.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from layerguard.integrations.gate import FAILED, REFUSAL, Gate, check_each
from layerguard.runtime import Guard

try:
    from litellm.exceptions import GuardrailRaisedException
    from litellm.integrations.custom_guardrail import CustomGuardrail
except ImportError as error:
    raise ImportError(
        "layerguard.integrations.litellm needs LiteLLM; run: pip install 'litellm[proxy]'"
    ) from error


class LayerGuardGuardrail(CustomGuardrail):
    """Raises ``GuardrailRaisedException`` for a text that may not pass."""

    streaming_buffer_until_moderated = True
    streaming_buffer_release_on_scan = True

    def __init__(
        self, guard: Guard | str | Path, *, refusal: str = REFUSAL, **settings: Any
    ) -> None:
        """Keep the guard.

        Args:
            guard: a guard or a bundle; see ``Gate``.
            refusal: what a client reads in place of a flagged text.
            settings: of every guardrail of LiteLLM, such as ``guardrail_name`` and ``event_hook``.

        Raises:
            BundleError: as ``Guard.load``.
            MachineError: as ``Guard.load``.
        """
        super().__init__(**settings)
        self._gate, self._refusal = Gate(guard), refusal

    async def apply_guardrail(
        self,
        inputs: Any,
        request_data: dict[str, Any],
        input_type: Literal["request", "response"],
        logging_obj: Any = None,
    ) -> Any:
        """Check the chat or the texts of a request, or each answer with its chat.

        Returns:
            ``inputs``, unchanged.

        Raises:
            GuardrailRaisedException: a text is flagged (status 400), or the guard fails (503).
        """
        answered = request_data if input_type == "response" else None
        decision = await self._gate.adecide(partial(check_each, requests=_asked(inputs, answered)))
        if decision.blocked:
            flagged = decision.verdict is not None
            raise GuardrailRaisedException(
                self.guardrail_name,
                self._refusal if flagged else FAILED,
                should_wrap_with_default_message=False,
                status_code=400 if flagged else 503,
                blocked_content=flagged,
            )
        return inputs


def _asked(
    inputs: Mapping[str, Any], answered: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """What to check, as arguments of ``Guard.check``.

    Args:
        inputs: the parts that LiteLLM found.
        answered: the request, if the inputs are its answers.
    """
    texts, calls = inputs.get("texts") or [], inputs.get("tool_calls") or []
    chat = inputs.get("structured_messages") or []
    if answered is None and chat:
        yield {"messages": chat, "tools": inputs.get("tools")}
        return
    chat = (answered or {}).get("messages") or []
    role = "user" if answered is None else "assistant"
    turns: list[dict[str, Any]] = [{"role": role, "content": text} for text in texts]
    if calls:
        plain = [call if isinstance(call, dict) else call.model_dump() for call in calls]
        turns.append({"role": "assistant", "content": None, "tool_calls": plain})
    if inputs.get("images"):  # the guard refuses them
        turns.append({"role": role, "content": [{"type": "image_url"}]})
    for turn in turns:
        yield {"messages": [*chat, turn]}
