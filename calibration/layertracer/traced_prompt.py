"""One prompt with its trace."""

from dataclasses import dataclass
from typing import Any

from layerguard.calibration.layertracer.prompt_reader import Prompt
from layerguard.calibration.layertracer.prompt_trace import PromptTrace


@dataclass(frozen=True, slots=True)
class TracedPrompt:
    """A prompt, its trace, and the text of its target token."""

    prompt: Prompt
    target_text: str
    trace: PromptTrace

    def to_json(self) -> dict[str, Any]:
        """One line of JSON; lists of L + 1 values start at layer 0, lists of L at layer 1."""
        trace = self.trace
        return {
            "id": self.prompt.id,
            "tokens": len(self.prompt.ids),
            "truncated": self.prompt.truncated,
            "target": {"id": trace.target, "text": self.target_text},
            "probability": trace.probability.tolist(),
            "ratio": trace.ratio.tolist(),
            "divergence_nats": trace.divergence_nats.tolist(),
            "max_ratio_layer": trace.max_ratio_layer,
            "first_rise_layer": trace.first_rise_layer,
            "vulnerable_layer": trace.vulnerable_layer,
        }
