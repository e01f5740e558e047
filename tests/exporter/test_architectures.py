"""Every architecture exports, and its graph is the model: one export each, with every output.

The weights are random, with channels of the states in the thousands, as trained models have them.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from layerguard.exporter.graph.outputs import plan
from layerguard.exporter.graph.part import Part, text_inputs
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.graph.wrapper import Reader
from layerguard.exporter.loading.architecture import Architecture, examine, feed_forwards
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.comparison import Comparison
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import Case, compare, make_cases
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

LIMIT = 1e-4
"""Of the largest element of a vector."""


def assert_close(found: Array, expected: Array) -> None:
    """Each vector along the last axis, by its largest element."""
    apart, scale = np.abs(found - expected).max(-1), np.abs(expected).max(-1)
    assert (apart <= LIMIT * scale).all(), (apart / scale).max()


@dataclass(frozen=True, eq=False)
class Exported:
    """A model, what was found out about it, its graph, and how far they are apart."""

    name: str
    model: PreTrainedModel
    architecture: Architecture
    session: Any
    comparison: Comparison
    cases: list[Case]

    def run(self, case: Case) -> dict[str, Array]:
        """All outputs of the graph."""
        names = [output.name for output in self.session.get_outputs()]
        feeds = {"input_ids": case.input_ids, "attention_mask": case.attention_mask}
        return dict(zip(names, self.session.run(names, feeds), strict=True))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One architecture through the exporter, states and pooled outputs in one graph."""
    folder = tmp_path_factory.mktemp(request.param)
    model = plant_outliers(build(request.param))
    architecture = examine(model)
    has = {"final_norm": architecture.final_norm, "mlp": False}
    outputs = plan("states", LAYERS, **has) + plan("pooled", LAYERS, **{**has, "mlp": True})
    mlps = feed_forwards(architecture)
    cases = make_cases(architecture, model.config.pad_token_id or 0)
    references = References(architecture, feed_forwards=mlps)
    for case in cases:
        for ids, _ in case.rows():
            references.want(ids)
    part = Part(
        "states",
        Reader(architecture, outputs, mlps),
        text_inputs(),
        outputs,
        partial(compare, cases=cases, references=references, outputs=outputs),
    )
    write_graph(part, folder, "score.onnx", SharedWeights(folder))
    session = onnxruntime.InferenceSession(str(folder / "score.onnx"))
    comparison = part.prove(session)
    return Exported(request.param, model, architecture, session, comparison, cases)


def test_every_output_is_the_models_own(exported: Exported) -> None:
    """No state, pooled state or feed-forward mean differs by more than the gate allows."""
    exported.comparison.decide("float32")
    worst = max(exported.comparison.largest, key=exported.comparison.largest.__getitem__)
    print(f"{exported.name}: {worst} {exported.comparison.largest[worst]:.1e}")


def test_the_architecture_is_found_out(exported: Exported) -> None:
    """Blocks, width, vocabulary, kind and final norm are found without knowing the model's name."""
    found = exported.architecture
    assert (found.layers, found.width, found.vocabulary) == (LAYERS, WIDTH, VOCABULARY)
    assert found.kind == ("encoder" if exported.name in ENCODERS else "decoder")
    assert found.final_norm == (ARCHITECTURES[exported.name][2] is not None)
    assert found.max_positions == 64
    assert found.first_position == (2 if exported.name == "roberta" else 0)


def test_the_last_state_is_before_the_final_norm(exported: Exported) -> None:
    """The graph's last state, through the model's own final norm, is the last hidden state."""
    case = exported.cases[1]
    outputs = exported.run(case)
    ids = torch.from_numpy(case.input_ids)
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


def test_state_zero_is_what_the_first_block_reads(exported: Exported) -> None:
    """With the embedding's scale where a model has one, as Gemma does."""
    read: list[Array] = []
    block = exported.architecture.blocks[0]
    handle = block.register_forward_pre_hook(
        lambda _, given, named: read.append((*given, named.get("hidden_states"))[0].numpy()),
        with_kwargs=True,
    )
    case = exported.cases[1]
    with handle, torch.inference_mode():
        exported.model(input_ids=torch.from_numpy(case.input_ids))
    state = exported.run(case)["state_00"]
    assert_close(state, read[0])
    if exported.name.startswith("gemma"):
        table = exported.model.get_input_embeddings().weight.detach().numpy()
        np.testing.assert_allclose(state, table[case.input_ids] * WIDTH**0.5, rtol=1e-5)


def test_pooled_is_the_pooled_states(exported: Exported) -> None:
    """The graph's last and mean outputs are those of its states, wherever the padding lies."""
    for case in exported.cases:
        outputs = exported.run(case)
        for row, (_, valid) in enumerate(case.rows()):
            for layer in range(LAYERS + 1):
                states = outputs[f"state_{layer:02}"][row, valid]
                np.testing.assert_array_equal(outputs[f"last_{layer:02}"][row], states[-1])
                mean = states.mean(0, dtype=np.float64)
                assert_close(outputs[f"mean_{layer:02}"][row], mean)
            if "final_norm" in outputs:
                normed = outputs["final_norm"][row, valid]
                np.testing.assert_array_equal(outputs["final_norm_last"][row], normed[-1])


def test_rows_do_not_feel_their_neighbours(exported: Exported) -> None:
    """A row gives the same states alone and padded beside longer ones, up to rounding."""
    case = exported.cases[-3]
    together = exported.run(case)
    for row, (ids, _) in enumerate(case.rows()):
        alone = exported.run(Case(ids[None], np.ones((1, len(ids)), np.int64)))
        for name in (f"last_{LAYERS:02}", f"mean_{LAYERS:02}"):
            assert_close(alone[name][0], together[name][row])
