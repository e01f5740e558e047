"""Which outputs an exported graph has.

Their names are ours: a name that the trace also uses inside the graph (``mean`` did) makes an
invalid model.
"""

from typing import Literal

from layerguard.runtime.bundle.manifest import OutputCard

Mode = Literal["pooled", "states"]


def plan(
    mode: Mode, layers: int, *, final_norm: bool, mlp: bool, tokens: bool = False
) -> tuple[OutputCard, ...]:
    """The outputs in the graph's order.

    Args:
        mode: ``states`` gives [batch, tokens, hidden] a layer; ``pooled`` gives the last valid
            token and the mean over valid tokens, float32 [batch, hidden] each.
        layers: L; states 0..L are given.
        final_norm: whether the last state has a form after the model's final norm.
        mlp: also the mean over valid tokens of each block's feed-forward output (SIREN's
            ``mlp_mean``), float32 [batch, hidden], in both modes.
        tokens: with ``pooled``, also every token's states, for detectors that read each token.
            ONNX Runtime neither keeps nor copies an output that nobody asks for.
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
    return tuple(cards)


def plan_decode(layers: int, *, final_norm: bool, logits: bool) -> tuple[OutputCard, ...]:
    """The outputs of a decode graph in its order.

    Args:
        layers: L; states 0..L and the new keys and values of blocks 1..L are given, the latter
            under the block's number from 0, as the inputs that hold the past ones.
        final_norm: whether the last state has a form after the model's final norm.
        logits: whether the model's own head is there.
    """
    cards = [OutputCard("logits", "logits", layers)] if logits else []
    cards += plan("states", layers, final_norm=final_norm, mlp=False)
    for block in range(layers):
        cards.append(OutputCard(f"key_{block:02}", "key", block + 1))
        cards.append(OutputCard(f"value_{block:02}", "value", block + 1))
    return tuple(cards)
