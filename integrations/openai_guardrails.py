"""A check for OpenAI Guardrails, by name in its configuration.

    register("guard/")

    {"version": 1, "guardrails": [{"name": "LayerGuard", "config": {}}]}

The framework lets a request pass if a check raises an error, unless it is told otherwise. This
check triggers the tripwire then. It is asked about one text at a time, a prompt or an answer.
"""

from pathlib import Path

from layerguard.integrations.gate import Gate
from layerguard.runtime import Guard

try:
    from guardrails import GuardrailResult
    from guardrails.registry import GuardrailRegistry, default_spec_registry
except ImportError as error:
    raise ImportError(
        "layerguard.integrations.openai_guardrails needs OpenAI Guardrails; "
        "run: pip install openai-guardrails"
    ) from error


def register(
    guard: Guard | str | Path,
    name: str = "LayerGuard",
    registry: GuardrailRegistry = default_spec_registry,
) -> None:
    """Register a guard as a check that takes no configuration.

    Args:
        guard: a guard or a bundle; see ``Gate``.
        name: the check's name in configurations.
        registry: where the framework looks for it.

    Raises:
        BundleError: as ``Guard.load``.
        MachineError: as ``Guard.load``.
        ValueError: the name is taken.
    """
    gate = Gate(guard)

    async def check(ctx: object, data: str, config: None) -> GuardrailResult:
        decision = await gate.adecide(lambda guard: guard.check(data))
        return GuardrailResult(
            tripwire_triggered=decision.blocked,
            execution_failed=decision.error is not None,
            original_exception=decision.error,
            info={"guardrail_name": name, "reason": decision.reason},
        )

    registry.register(name, check, "Reads a model's hidden layers.", "text/plain")
