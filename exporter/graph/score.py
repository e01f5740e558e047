"""The score graph: whole texts in, states or pooled states out."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from layerguard.exporter.graph.outputs import Mode, plan
from layerguard.exporter.graph.part import Part, text_inputs
from layerguard.exporter.graph.wrapper import Reader
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import compare, make_cases


def score_part(
    architecture: Architecture,
    mode: Mode,
    layers: int,
    pad: int,
    references: References,
    feed_forwards: Sequence[nn.Module] = (),
) -> Part:
    """The score graph of the first ``layers`` blocks; its texts are asked of ``references``.

    Args:
        architecture: of the backbone.
        mode: ``pooled``, of a decoder with every token's states beside, or ``states``.
        layers: 1 to all.
        pad: token id that fills short rows.
        references: of the model, with the same feed-forward parts.
        feed_forwards: of the kept blocks, whose mean outputs the graph gives too; or none.
    """
    norm = architecture.final_norm and layers == architecture.layers
    tokens = architecture.kind == "decoder"
    outputs = plan(mode, layers, final_norm=norm, mlp=bool(feed_forwards), tokens=tokens)
    cases = make_cases(architecture, pad)
    for case in cases:
        for ids, _ in case.rows():
            references.want(ids)
    return Part(
        mode=mode,
        module=Reader(architecture, outputs, feed_forwards),
        inputs=text_inputs(),
        outputs=outputs,
        prove=partial(compare, cases=cases, references=references, outputs=outputs),
    )
