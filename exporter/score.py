"""The score graph: whole texts in, states or pooled states out."""

from functools import partial

from layerguard.exporter.architecture import Architecture, feed_forwards
from layerguard.exporter.outputs import Mode, plan
from layerguard.exporter.parity import compare, make_cases, reference
from layerguard.exporter.part import Part, text_inputs
from layerguard.exporter.wrapper import Reader


def score_part(architecture: Architecture, mode: Mode, layers: int, pad: int, *, mlp: bool) -> Part:
    """The score graph of the first ``layers`` blocks; the model is run in PyTorch for the proof.

    Args:
        architecture: in float32.
        mode: ``pooled``, of a decoder with every token's states beside, or ``states``.
        layers: 1 to all.
        pad: token id that fills short rows.
        mlp: also the mean feed-forward output of each block.

    Raises:
        ExportError: the model's states cannot be proved, or it has no feed-forward parts.
    """
    mlps = feed_forwards(architecture)[:layers] if mlp else ()
    norm = architecture.final_norm and layers == architecture.layers
    tokens = architecture.kind == "decoder"
    outputs = plan(mode, layers, final_norm=norm, mlp=mlp, tokens=tokens)
    cases = make_cases(architecture, pad)
    expected = reference(architecture, cases, outputs, mlps)
    return Part(
        mode=mode,
        module=Reader(architecture, outputs, mlps),
        inputs=text_inputs(),
        outputs=outputs,
        prove=partial(compare, cases=cases, expected=expected, outputs=outputs),
    )
