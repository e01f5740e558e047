"""The analysis graph equals the model with gates; open gates change nothing."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layerguard.exporter import Options, command, export
from layerguard.exporter.graph import analysis
from layerguard.exporter.graph.analysis import AnalysisModule, analysis_graph
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.analysis import GatedBatch, make_gated_batches, reference_lens
from layerguard.runtime import Bundle
from layerguard.runtime.cli import main
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array
from tests.exporter.models import (
    DECODERS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    build,
    build_causal,
    save_tokenizer,
)

TOLERANCE = 1e-4
BLOCKS = 2
"""Of the traced models: the time of a trace is proportional to its blocks."""


def spec_of(causal: PreTrainedModel) -> GraphSpec:
    """The specification of the analysis graph of all blocks."""
    loaded = LoadedModel(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model)
    return analysis_graph(loaded, architecture, architecture.layers, pad=0)


def write(spec: GraphSpec, folder: Path) -> Any:
    """Write the graph to ``folder`` and open a session on it."""
    write_graph(spec, folder, "analysis.onnx", SharedWeights(folder))
    return onnxruntime.InferenceSession(str(folder / "analysis.onnx"))


@dataclass(frozen=True, eq=False)
class Graph:
    """A model of two blocks and a session on its analysis graph."""

    causal: PreTrainedModel
    session: Any

    @property
    def architecture(self) -> Architecture:
        """Of the backbone."""
        return examine(self.causal.base_model)

    def run(self, batch: GatedBatch) -> list[Array]:
        """Logits of states 0..L, [batch, vocabulary] each."""
        names = {item.name for item in self.session.get_inputs()}
        feeds = {name: value for name, value in batch.feeds().items() if name in names}
        logits: list[Array] = self.session.run(None, feeds)
        return logits

    def batches(self) -> list[GatedBatch]:
        """Batches of several shapes and paddings, alternately with random and open gates."""
        return make_gated_batches(self.architecture, pad=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama exported with an analysis graph."""
    folder = tmp_path_factory.mktemp("llama")
    build_causal("llama", num_hidden_layers=BLOCKS).save_pretrained(folder / "model")
    save_tokenizer(folder / "model")
    export(str(folder / "model"), folder / "bundle", Options(analysis=True, decode="no"))
    return folder / "bundle"


@pytest.fixture(scope="module")
def llama(bundle: Path) -> Graph:
    """The graph of that bundle."""
    session = onnxruntime.InferenceSession(str(bundle / "analysis.onnx"))
    return Graph(build_causal("llama", num_hidden_layers=BLOCKS), session)


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Soft-caps on attention and logits, a scaled embedding, a window in every second block."""
    causal = build_causal("gemma2", num_hidden_layers=BLOCKS, final_logit_softcapping=5.0)
    return Graph(causal, write(spec_of(causal), tmp_path_factory.mktemp("gemma2")))


@pytest.fixture(params=["llama", "gemma2"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """Both graphs."""
    graph: Graph = request.getfixturevalue(request.param)
    return graph


@pytest.mark.parametrize("name", DECODERS)
def test_the_module_equals_the_reference_for_every_decoder(name: str) -> None:
    """The module before conversion against the reference of the export check."""
    causal = build_causal(name)
    architecture = examine(causal.base_model)
    module = AnalysisModule(architecture, causal)
    batches = make_gated_batches(architecture, pad=0)
    expected = reference_lens(architecture, causal, batches)
    assert any(batch.bypass.any() and (batch.keep != 1).any() for batch in batches)
    for batch, rows in zip(batches, expected, strict=True):
        with torch.inference_mode():
            outputs = module(*map(torch.from_numpy, batch.feeds().values()))
        for layer, logits in enumerate(outputs):
            reference = np.stack([row.exact[layer] for row in rows])
            np.testing.assert_allclose(logits.numpy(), reference, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_export_check_covers_every_layer_and_refuses_another_model(llama: Graph) -> None:
    """It passes for the model, and fails if one weight differs."""
    causal = build_causal("llama", num_hidden_layers=BLOCKS)
    proof = spec_of(causal).prove(llama.session)
    proof.check("float32")
    assert list(proof.largest) == [f"lens_{layer:02}" for layer in range(BLOCKS + 1)]
    assert proof.shapes == len(llama.batches()) >= 5
    with torch.no_grad():
        causal.base_model.norm.weight[0] += 1
    with pytest.raises(ExportError, match="float32 graph differs from the model: 3 of 3 outputs"):
        spec_of(causal).prove(llama.session).check("float32")


def test_the_graph_equals_the_reference(graph: Graph) -> None:
    """Every layer with random gates, on shapes that differ from those of the trace."""
    batches = [batch for batch in graph.batches() if batch.bypass.any()]
    expected = reference_lens(graph.architecture, graph.causal, batches)
    for batch, rows in zip(batches, expected, strict=True):
        for layer, logits in enumerate(graph.run(batch)):
            reference = np.stack([row.exact[layer] for row in rows])
            np.testing.assert_allclose(logits, reference, rtol=TOLERANCE, atol=TOLERANCE)


def test_inputs_and_outputs(graph: Graph) -> None:
    """Names, types and free axes."""
    inputs = {item.name: (item.type, item.shape) for item in graph.session.get_inputs()}
    assert inputs == {
        "input_ids": ("tensor(int64)", ["batch", "tokens"]),
        "attention_mask": ("tensor(int64)", ["batch", "tokens"]),
        "bypass": ("tensor(bool)", ["batch", BLOCKS]),
        "keep": ("tensor(float)", ["batch", BLOCKS, WIDTH]),
    }
    for item in graph.session.get_outputs():
        assert (item.type, item.shape) == ("tensor(float)", ["batch", VOCABULARY])


def test_the_last_layer_equals_the_models_own_output(graph: Graph) -> None:
    """Final norm and soft-cap are applied once."""
    for batch in graph.batches()[1::2]:
        logits = graph.run(batch)[-1]
        for row, (ids, _) in enumerate(batch.texts.rows()):
            with torch.inference_mode():
                own = graph.causal(input_ids=torch.from_numpy(ids[None])).logits[0, -1].numpy()
            np.testing.assert_allclose(logits[row], own, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_bypassed_block_has_no_effect(graph: Graph, block: int) -> None:
    """The logits equal those of PyTorch with the identity in place of the block."""
    batch = next(batch for batch in graph.batches() if batch.texts.input_ids.shape == (1, 7))
    bypass = batch.bypass.copy()
    bypass[:, block] = True
    logits = graph.run(GatedBatch(batch.texts, bypass, batch.keep))[-1]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        # the blocks of these models may return states only
        patch.setattr(graph.architecture.blocks[block], "forward", lambda states, *_, **__: states)
        ids = torch.from_numpy(batch.texts.input_ids)
        reference = graph.causal(input_ids=ids, use_cache=False).logits[:, -1]
    np.testing.assert_allclose(logits, reference.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


def test_open_gates_change_no_bit(
    llama: Graph, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs are bit-identical to those of a graph without gates."""

    @contextmanager
    def ungated(blocks: Sequence[nn.Module], *_: Tensor) -> Iterator[list[Any]]:
        outputs: list[Any] = []
        with ExitStack() as hooks:
            for block in blocks:
                hooks.enter_context(
                    block.register_forward_hook(lambda _, __, output: outputs.append(output))
                )
            yield outputs

    monkeypatch.setattr(analysis, "gated", ungated)
    plain = Graph(llama.causal, write(spec_of(llama.causal), tmp_path))
    sizes = [len(onnx.load(path / "analysis.onnx").graph.node) for path in (tmp_path, bundle)]
    assert sizes[0] <= sizes[1] - 2 * BLOCKS, "the plain graph has gates"
    for batch in llama.batches()[1::2]:
        for gated, ungated_logits in zip(llama.run(batch), plain.run(batch), strict=True):
            np.testing.assert_array_equal(gated, ungated_logits)


def test_models_without_a_head_are_refused() -> None:
    """They have no logits."""
    model = build("bert")
    loaded = LoadedModel(model, None, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="BertModel has no language-model head"):
        analysis_graph(loaded, examine(model), LAYERS, pad=0)


def test_fewer_layers_are_refused() -> None:
    """The head needs the last block."""
    causal = build_causal("llama")
    loaded = LoadedModel(causal.base_model, causal, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="expected all 3 blocks"):
        analysis_graph(loaded, examine(causal.base_model), LAYERS - 1, pad=0)


def test_the_bundle_has_the_graph_and_its_weights_once(bundle: Path) -> None:
    """Score and analysis graph share one weight file, which is not larger than the model."""
    manifest = Bundle.load(bundle).manifest
    card = manifest.graphs["analysis"]
    assert (card.file, card.mode) == ("analysis.onnx", "analysis")
    assert card.inputs == ("input_ids", "attention_mask", "bypass", "keep")
    assert max(card.parity.largest.values()) <= card.parity.tolerance == 1e-5
    parameters = build_causal("llama", num_hidden_layers=BLOCKS).parameters()
    assert manifest.files["weights.data"].bytes <= sum(tensor.nbytes for tensor in parameters)


def test_a_trace_suggests_the_layers_of_the_next_export(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``trace --json`` prints the number, ``export --layers @FILE`` reads it."""
    assert main(["trace", str(bundle), "w1 w2 w3", "--json", "--threads", "1"]) == 0
    traced = tmp_path / "trace.json"
    traced.write_text(capsys.readouterr().out)
    summary = json.loads(traced.read_text().splitlines()[-1])
    calls: list[Options] = []
    monkeypatch.setattr(command, "export", lambda *arguments: calls.append(arguments[2]))
    monkeypatch.setattr(command, "report", lambda _: [])
    assert main(["export", "model", "-o", "bundle", "--analysis"]) == 0
    assert main(["export", "model", "-o", "bundle", "--layers", f"@{traced}"]) == 0
    assert [options.layers for options in calls] == [None, summary["suggested_layers"]]
    assert [options.analysis for options in calls] == [True, False]
