"""The graph of every architecture equals the model: one export each, with all outputs.

The weights are random; some channels of the states are in the thousands, as in trained models.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from layerguard.exporter.graph.outputs import score_outputs
from layerguard.exporter.graph.score import ScoreModule
from layerguard.exporter.graph.spec import GraphSpec, text_inputs
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine, feed_forwards
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.differences import Proof
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import TextBatch, compare, make_batches
from layerguard.runtime.types import Array
from tests.exporter.models import (
    ARCHITECTURES,
    ENCODERS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    build,
    plant_outliers,
)

TOLERANCE = 1e-4
"""Relative to the largest element of a vector."""


def assert_close(actual: Array, expected: Array) -> None:
    """Compare each vector along the last axis, relative to its largest element."""
    apart, scale = np.abs(actual - expected).max(-1), np.abs(expected).max(-1)
    assert (apart <= TOLERANCE * scale).all(), (apart / scale).max()


@dataclass(frozen=True, eq=False)
class Exported:
    """A model, its architecture, a session on its graph, and the proof of the graph."""

    name: str
    model: PreTrainedModel
    architecture: Architecture
    session: Any
    proof: Proof
    batches: list[TextBatch]

    def run(self, batch: TextBatch) -> dict[str, Array]:
        """All outputs of the graph."""
        names = [output.name for output in self.session.get_outputs()]
        feeds = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return dict(zip(names, self.session.run(names, feeds), strict=True))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One exported architecture, with states and pooled outputs in one graph."""
    folder = tmp_path_factory.mktemp(request.param)
    model = plant_outliers(build(request.param))
    architecture = examine(model)
    has = {"final_norm": architecture.final_norm, "mlp": False}
    outputs = score_outputs("states", LAYERS, **has) + score_outputs(
        "pooled", LAYERS, **{**has, "mlp": True}
    )
    mlps = feed_forwards(architecture)
    batches = make_batches(architecture, model.config.pad_token_id or 0)
    references = References(architecture, feed_forwards=mlps)
    for batch in batches:
        for ids, _ in batch.rows():
            references.request(ids)
    spec = GraphSpec(
        "states",
        ScoreModule(architecture, outputs, mlps),
        text_inputs(),
        outputs,
        partial(compare, batches=batches, references=references, outputs=outputs),
    )
    write_graph(spec, folder, "score.onnx", SharedWeights(folder))
    session = onnxruntime.InferenceSession(str(folder / "score.onnx"))
    proof = spec.prove(session)
    return Exported(request.param, model, architecture, session, proof, batches)


def test_every_output_passes_the_export_check(exported: Exported) -> None:
    """States, pooled states and feed-forward means are within the tolerance."""
    exported.proof.check("float32")
    worst = max(exported.proof.largest, key=exported.proof.largest.__getitem__)
    print(f"{exported.name}: {worst} {exported.proof.largest[worst]:.1e}")


def test_the_architecture_is_found(exported: Exported) -> None:
    """Blocks, width, vocabulary, kind, final norm and positions."""
    architecture = exported.architecture
    assert (architecture.layers, architecture.width, architecture.vocabulary) == (
        LAYERS,
        WIDTH,
        VOCABULARY,
    )
    assert architecture.kind == ("encoder" if exported.name in ENCODERS else "decoder")
    assert architecture.final_norm == (ARCHITECTURES[exported.name][2] is not None)
    assert architecture.max_positions == 64
    assert architecture.first_position == (2 if exported.name == "roberta" else 0)


def test_the_last_state_is_before_the_final_norm(exported: Exported) -> None:
    """The model's final norm of the graph's last state gives the last hidden state."""
    batch = exported.batches[1]
    outputs = exported.run(batch)
    ids = torch.from_numpy(batch.input_ids)
    with torch.inference_mode():
        final = exported.model(input_ids=ids).last_hidden_state.numpy()
    state = outputs[f"state_{LAYERS:02}"]
    norm = ARCHITECTURES[exported.name][2]
    if norm is None:
        assert_close(state, final)
        assert "final_norm" not in outputs
        return
    with torch.inference_mode():
        normed = getattr(exported.model, norm)(torch.from_numpy(state)).numpy()
    assert np.abs(state - final).max() > 0.1
    assert_close(normed, final)
    assert_close(outputs["final_norm"], final)


def test_state_zero_is_the_input_of_the_first_block(exported: Exported) -> None:
    """It includes the scale of the embedding, which Gemma has."""
    inputs: list[Array] = []
    block = exported.architecture.blocks[0]
    handle = block.register_forward_pre_hook(
        lambda _, args, named: inputs.append((*args, named.get("hidden_states"))[0].numpy()),
        with_kwargs=True,
    )
    batch = exported.batches[1]
    with handle, torch.inference_mode():
        exported.model(input_ids=torch.from_numpy(batch.input_ids))
    state = exported.run(batch)["state_00"]
    assert_close(state, inputs[0])
    if exported.name.startswith("gemma"):
        table = exported.model.get_input_embeddings().weight.detach().numpy()
        np.testing.assert_allclose(state, table[batch.input_ids] * WIDTH**0.5, rtol=1e-5)


def test_pooled_outputs_equal_pooled_states(exported: Exported) -> None:
    """Last and mean outputs match the states, with padding on either side."""
    for batch in exported.batches:
        outputs = exported.run(batch)
        for row, (_, valid) in enumerate(batch.rows()):
            for layer in range(LAYERS + 1):
                states = outputs[f"state_{layer:02}"][row, valid]
                np.testing.assert_array_equal(outputs[f"last_{layer:02}"][row], states[-1])
                mean = states.mean(0, dtype=np.float64)
                assert_close(outputs[f"mean_{layer:02}"][row], mean)
            if "final_norm" in outputs:
                normed = outputs["final_norm"][row, valid]
                np.testing.assert_array_equal(outputs["final_norm_last"][row], normed[-1])


def test_rows_are_independent(exported: Exported) -> None:
    """A row has the same states alone and in a padded batch, up to rounding."""
    batch = exported.batches[-3]
    together = exported.run(batch)
    for row, (ids, _) in enumerate(batch.rows()):
        alone = exported.run(TextBatch(ids[None], np.ones((1, len(ids)), np.int64)))
        for name in (f"last_{LAYERS:02}", f"mean_{LAYERS:02}"):
            assert_close(alone[name][0], together[name][row])
