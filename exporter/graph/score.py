"""The score graph: whole texts in, states or pooled states out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from layerguard.exporter.graph.added import adding
from layerguard.exporter.graph.outputs import Mode, score_outputs
from layerguard.exporter.graph.pooling import Pooling
from layerguard.exporter.graph.recording import recording
from layerguard.exporter.graph.spec import GraphSpec, text_inputs
from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.changes import Change
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import compare, make_batches
from layerguard.runtime.bundle.manifest import OutputCard


def score_graph(
    architecture: Architecture,
    mode: Mode,
    layers: int,
    pad: int,
    references: References,
    feed_forwards: Sequence[nn.Module] = (),
    changes: Sequence[Change] = (),
) -> GraphSpec:
    """The score graph of the first ``layers`` blocks; requests its test texts from ``references``.

    Args:
        architecture: of the backbone.
        mode: ``pooled`` (with the states of every token for decoders) or ``states``.
        layers: number of blocks, 1 to all.
        pad: token id that fills short rows.
        references: of the model, with the same feed-forward parts.
        feed_forwards: of the kept blocks, for their mean outputs; or none.
        changes: of the kept blocks, for what they add.
    """
    outputs = score_outputs(
        mode,
        layers,
        final_norm=architecture.final_norm and layers == architecture.layers,
        mlp=bool(feed_forwards),
        tokens=architecture.kind == "decoder",
        changed=[change.place for change in changes],
    )
    batches = make_batches(architecture, pad)
    for batch in batches:
        for ids, _ in batch.rows():
            references.request(ids)
    return GraphSpec(
        mode=mode,
        module=ScoreModule(architecture, outputs, feed_forwards, changes),
        inputs=text_inputs(),
        outputs=outputs,
        prove=partial(compare, batches=batches, references=references, outputs=outputs),
    )


class ScoreModule(nn.Module):
    """The backbone as a module that returns the outputs of a score graph.

    The trace runs the blocks above the last needed state, and removes them because no output
    depends on them. A bundle with fewer layers is therefore exact.
    """

    def __init__(
        self,
        architecture: Architecture,
        outputs: Sequence[OutputCard],
        feed_forwards: Sequence[nn.Module] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        super().__init__()
        self.model = architecture.model
        self._architecture = architecture
        self._outputs = tuple(outputs)
        self._feed_forwards = tuple(feed_forwards)
        self._changes = tuple(changes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """int64 [batch, tokens] twice -> the outputs in order."""
        arguments = self._architecture.arguments(input_ids, attention_mask)
        with (
            recording(self._architecture.blocks, self._feed_forwards) as recorded,
            adding(self._changes) as added,
        ):
            normed = self.model(**arguments, return_dict=True).last_hidden_state
        pool = Pooling(attention_mask)
        compute: Mapping[str, Callable[[int], Tensor]] = {
            "state": lambda layer: recorded.states[layer],
            "last": lambda layer: pool.last(recorded.states[layer]),
            "mean": lambda layer: pool.mean(recorded.states[layer]),
            "final_norm": lambda _: normed,
            "final_norm_last": lambda _: pool.last(normed),
            "final_norm_mean": lambda _: pool.mean(normed),
            "mlp_mean": lambda layer: pool.mean(recorded.mlp[layer - 1]),
            **added.by_kind(),
        }
        return tuple(compute[card.kind](card.layer) for card in self._outputs)
