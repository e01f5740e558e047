"""The trace of one prompt: its target's curve, and what masking each block does to its answer."""

from dataclasses import dataclass

import numpy as np

from layerguard.calibration.trace.curves import (
    Rise,
    first_rise_layer,
    log_softmax,
    max_ratio_layer,
    ratios,
)
from layerguard.calibration.trace.divergence import js_divergence_nats
from layerguard.calibration.trace.graph import AnalysisGraph
from layerguard.calibration.trace.masks import Mask
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class PromptTrace:
    """One prompt, read at its last token; layers are state indices (see ``runtime/types.py``).

    Attributes:
        target: the token whose probability is followed.
        probability: of the target at each layer, float64 [L + 1]; the last is the model's own.
        ratio: of each layer's probability to that of the layer before, float64 [L].
        divergence_nats: between the model's output and its output with block l masked,
            float64 [L], in 0..ln 2.
        max_ratio_layer: 1..L, where ``ratio`` is largest.
        first_rise_layer: 1..L, where it is first significant; None where it never is.
    """

    target: int
    probability: Array
    ratio: Array
    divergence_nats: Array
    max_ratio_layer: int
    first_rise_layer: int | None

    @property
    def vulnerable_layer(self) -> int:
        """1..L, the block whose masking moves the output most; the first of equals."""
        return int(self.divergence_nats.argmax()) + 1


def trace_prompt(
    graph: AnalysisGraph,
    ids: Ids,
    target: int | None = None,
    *,
    mask: Mask | None = None,
    rise: Rise | None = None,
) -> PromptTrace:
    """Run the graph once whole and once for each masked block.

    Args:
        graph: of the bundle.
        ids: the prompt's tokens; the answer begins after the last of them.
        target: a token id; None for the model's own most probable next token.
        mask: what becomes of a block; None for the default, ``zero``.
        rise: what counts as significant; None for the defaults.

    Raises:
        InputError: the target is no token of the model, or logits are not finite.
    """
    mask, rise = mask or Mask(), rise or Rise()
    layers = log_softmax(graph.lens(ids))
    whole = layers[-1]
    if target is None:
        target = int(whole.argmax())
    if not 0 <= target < len(whole):
        raise InputError(f"target {target}: expected a token id from 0 to {len(whole) - 1}")
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
