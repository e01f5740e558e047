"""The outputs of exported graphs.

Names must differ from those that the trace uses inside the graph, such as ``mean``; otherwise the
model is invalid.
"""

from collections.abc import Sequence
from typing import Literal

from layerguard.runtime.bundle.manifest import ADDED_KINDS, OutputCard
from layerguard.runtime.checkpoints.places import Place

Mode = Literal["pooled", "states"]


def score_outputs(
    mode: Mode,
    layers: int,
    *,
    final_norm: bool,
    mlp: bool,
    tokens: bool = False,
    changed: Sequence[Place] = (),
) -> tuple[OutputCard, ...]:
    """The outputs of a score graph in order.

    Args:
        mode: ``states``: [batch, tokens, hidden] per layer; ``pooled``: the last valid token and
            the mean over valid tokens, float32 [batch, hidden] each.
        layers: L; the outputs are states 0..L.
        final_norm: add the last state after the model's final norm.
        mlp: add the mean over valid tokens of each block's feed-forward output (SIREN's
            ``mlp_mean``), float32 [batch, hidden], in both modes.
        tokens: with ``pooled``, add the states of every token, for detectors that read each token.
            ONNX Runtime neither keeps nor copies outputs that are not requested.
        changed: matrices of these blocks that tuning changed, in order; for each one ln |dW x|,
            float32 [batch, tokens], in both modes.
    """
    indices = range(layers + 1)
    states = [OutputCard(f"state_{i:02}", "state", i) for i in indices]
    if mode == "states":
        cards = states
        if final_norm:
            cards.append(OutputCard("final_norm", "final_norm", layers))
    else:
        cards = [OutputCard(f"last_{i:02}", "last", i) for i in indices]
        cards += [OutputCard(f"mean_{i:02}", "mean", i) for i in indices]
        if final_norm:
            cards.append(OutputCard("final_norm_last", "final_norm_last", layers))
            cards.append(OutputCard("final_norm_mean", "final_norm_mean", layers))
        cards += states if tokens else []
    if mlp:
        cards += [OutputCard(f"mlp_mean_{i:02}", "mlp_mean", i) for i in indices[1:]]
    cards += [_added(block + 1, part) for block, part in changed]
    return tuple(cards)


def _added(layer: int, part: int) -> OutputCard:
    kind = ADDED_KINDS[part]
    return OutputCard(f"{kind}_{layer:02}", kind, layer)


def decode_outputs(
    layers: int, *, final_norm: bool, logits: bool, changed: Sequence[Place] = ()
) -> tuple[OutputCard, ...]:
    """The outputs of a decode graph in order.

    Args:
        layers: L; the outputs are states 0..L and the new keys and values of blocks 1..L. Names of
            keys and values count blocks from 0, like the inputs for the past ones.
        final_norm: add the last state after the model's final norm.
        logits: add the logits of the model's own head.
        changed: as for a score graph.
    """
    cards = [OutputCard("logits", "logits", layers)] if logits else []
    cards += score_outputs("states", layers, final_norm=final_norm, mlp=False, changed=changed)
    for block in range(layers):
        cards.append(OutputCard(f"key_{block:02}", "key", block + 1))
        cards.append(OutputCard(f"value_{block:02}", "value", block + 1))
    return tuple(cards)
