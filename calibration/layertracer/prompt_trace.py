"""The trace of one prompt: its target's probability by layer, and the effect of each mask."""

from dataclasses import dataclass

import numpy as np

from layerguard.calibration.layertracer.curves import (
    Rise,
    first_rise_layer,
    log_softmax,
    max_ratio_layer,
    ratios,
)
from layerguard.calibration.layertracer.divergence import js_divergence_nats
from layerguard.calibration.layertracer.graph import AnalysisGraph
from layerguard.calibration.layertracer.masks import Mask
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class PromptTrace:
    """One prompt, read at its last token; layers are state indices (see ``runtime/types.py``).

    Attributes:
        target: token id of the target.
        probability: the target's probability at each layer, float64 [L + 1]; the last value is
            that of the model's output.
        ratio: ratio of each layer's probability to that of the layer before, float64 [L].
        divergence_nats: divergence of the output with block l masked from the model's output,
            float64 [L], in 0..ln 2.
        max_ratio_layer: layer with the largest ratio, 1..L.
        first_rise_layer: first layer with a significant rise, 1..L; None if there is none.
    """

    target: int
    probability: Array
    ratio: Array
    divergence_nats: Array
    max_ratio_layer: int
    first_rise_layer: int | None

    @property
    def vulnerable_layer(self) -> int:
        """The block whose masking changes the output most, 1..L; ties go to the first."""
        return int(self.divergence_nats.argmax()) + 1


def trace_prompt(
    graph: AnalysisGraph,
    ids: Ids,
    target: int | None = None,
    *,
    mask: Mask | None = None,
    rise: Rise | None = None,
) -> PromptTrace:
    """Run the graph once without a mask and once for each masked block.

    Args:
        graph: analysis graph of the bundle.
        ids: token ids of the prompt; the answer follows the last one.
        target: a token id; None for the model's most probable next token.
        mask: how a block is masked; None for the default, ``zero``.
        rise: definition of a significant rise; None for the default.

    Raises:
        InputError: the target is not a token of the model, or logits are not finite.
    """
    mask, rise = mask or Mask(), rise or Rise()
    layers = log_softmax(graph.lens(ids))
    whole = layers[-1]
    if target is None:
        target = int(whole.argmax())
    if not 0 <= target < len(whole):
        raise InputError(f"target: found {target}; expected a token id from 0 to {len(whole) - 1}")
    probability = np.exp(layers[:, target])
    ratio = ratios(probability, rise.floor)
    return PromptTrace(
        target=target,
        probability=probability,
        ratio=ratio,
        divergence_nats=js_divergence_nats(whole, log_softmax(graph.masked(ids, mask))),
        max_ratio_layer=max_ratio_layer(ratio),
        first_rise_layer=first_rise_layer(probability, ratio, rise),
    )
