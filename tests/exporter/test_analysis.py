"""The analysis graph is the model under gates, and open gates are no gates."""

import json
from argparse import ArgumentTypeError
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
from layerguard.exporter.graph.analysis import AnalysisReader, analysis_part
from layerguard.exporter.graph.part import Part
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.analysis import GatedCase, make_gated_cases, reference_lens
from layerguard.exporter.suggestion import layers_argument
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

LIMIT = 1e-4
BLOCKS = 2
"""Of the models that become graphs: a graph's time is its blocks'."""


def part_of(causal: PreTrainedModel) -> Part:
    """The analysis graph of all its blocks, before it is written."""
    loaded = Loaded(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model)
    return analysis_part(loaded, architecture, architecture.layers, pad=0)


def write(part: Part, folder: Path) -> Any:
    """A session on the part's graph in ``folder``."""
    write_graph(part, folder, "analysis.onnx", SharedWeights(folder))
    return onnxruntime.InferenceSession(str(folder / "analysis.onnx"))


@dataclass(frozen=True, eq=False)
class Graph:
    """A model of two blocks, and its analysis graph in a session."""

    causal: PreTrainedModel
    session: Any

    @property
    def architecture(self) -> Architecture:
        """Of the backbone."""
        return examine(self.causal.base_model)

    def run(self, gated: GatedCase) -> list[Array]:
        """Logits of states 0..L, [batch, vocabulary] each."""
        asked = {item.name for item in self.session.get_inputs()}
        feeds = {name: value for name, value in gated.feeds().items() if name in asked}
        found: list[Array] = self.session.run(None, feeds)
        return found

    def cases(self) -> list[GatedCase]:
        """Batches of several shapes, padded left and right, gates open and random in turn."""
        return make_gated_cases(self.architecture, pad=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama exported with an analysis graph; the model's folder lies beside it."""
    folder = tmp_path_factory.mktemp("llama")
    build_causal("llama", num_hidden_layers=BLOCKS).save_pretrained(folder / "model")
    save_tokenizer(folder / "model")
    export(str(folder / "model"), folder / "bundle", Options(analysis=True, decode="no"))
    return folder / "bundle"


@pytest.fixture(scope="module")
def llama(bundle: Path) -> Graph:
    """Its graph."""
    session = onnxruntime.InferenceSession(str(bundle / "analysis.onnx"))
    return Graph(build_causal("llama", num_hidden_layers=BLOCKS), session)


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Soft-caps on attention and logits, a scaled embedding, a window in every other block."""
    causal = build_causal("gemma2", num_hidden_layers=BLOCKS, final_logit_softcapping=5.0)
    return Graph(causal, write(part_of(causal), tmp_path_factory.mktemp("gemma2")))


@pytest.fixture(params=["llama", "gemma2"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """Each of the two."""
    found: Graph = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_read_under_gates(name: str) -> None:
    """The traced module against the proof's reference, before any ONNX."""
    causal = build_causal(name)
    architecture = examine(causal.base_model)
    reader = AnalysisReader(architecture, causal)
    cases = make_gated_cases(architecture, pad=0)
    expected = reference_lens(architecture, causal, cases)
    assert any(gated.bypass.any() and (gated.keep != 1).any() for gated in cases)
    for gated, rows in zip(cases, expected, strict=True):
        with torch.inference_mode():
            found = reader(*map(torch.from_numpy, gated.feeds().values()))
        for layer, logits in enumerate(found):
            theirs = np.stack([row.exact[layer] for row in rows])
            np.testing.assert_allclose(logits.numpy(), theirs, rtol=LIMIT, atol=LIMIT)


def test_the_proof_names_every_layer_and_is_closed_to_another_model(llama: Graph) -> None:
    """It holds for the model, and stops the export where one weight is another."""
    causal = build_causal("llama", num_hidden_layers=BLOCKS)
    proof = part_of(causal).prove(llama.session)
    proof.decide("float32")
    assert list(proof.largest) == [f"lens_{layer:02}" for layer in range(BLOCKS + 1)]
    assert proof.shapes == len(llama.cases()) >= 5
    with torch.no_grad():
        causal.base_model.norm.weight[0] += 1
    with pytest.raises(ExportError, match="float32 graph is not the model: 3 of 3 outputs"):
        part_of(causal).prove(llama.session).decide("float32")


def test_gated_graphs_are_gated_models(graph: Graph) -> None:
    """Every layer under random gates, over shapes that the trace never saw."""
    cases = [gated for gated in graph.cases() if gated.bypass.any()]
    expected = reference_lens(graph.architecture, graph.causal, cases)
    for gated, rows in zip(cases, expected, strict=True):
        for layer, logits in enumerate(graph.run(gated)):
            theirs = np.stack([row.exact[layer] for row in rows])
            np.testing.assert_allclose(logits, theirs, rtol=LIMIT, atol=LIMIT)


def test_inputs_and_outputs_are_as_the_bundle_says(graph: Graph) -> None:
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


def test_the_last_layer_is_the_models_own_output(graph: Graph) -> None:
    """Normed once, capped once."""
    for gated in graph.cases()[1::2]:
        found = graph.run(gated)[-1]
        for row, (ids, _) in enumerate(gated.case.rows()):
            with torch.inference_mode():
                own = graph.causal(input_ids=torch.from_numpy(ids[None])).logits[0, -1]
            np.testing.assert_allclose(found[row], own.numpy(), rtol=LIMIT, atol=LIMIT)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_bypassed_block_might_as_well_not_be_there(graph: Graph, block: int) -> None:
    """Equal to PyTorch with a block in its place that does nothing."""
    gated = next(case for case in graph.cases() if case.case.input_ids.shape == (1, 7))
    bypass = gated.bypass.copy()
    bypass[:, block] = True
    found = graph.run(GatedCase(gated.case, bypass, gated.keep))[-1]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        # every model of this module takes a block's bare states for its whole answer
        patch.setattr(graph.architecture.blocks[block], "forward", lambda states, *_, **__: states)
        ids = torch.from_numpy(gated.case.input_ids)
        theirs = graph.causal(input_ids=ids, use_cache=False).logits[:, -1]
    np.testing.assert_allclose(found, theirs.numpy(), rtol=LIMIT, atol=LIMIT)


def test_open_gates_change_no_bit(
    llama: Graph, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers to the last bit as from a graph that was exported without gates."""

    @contextmanager
    def ungated(blocks: Sequence[nn.Module], *_: Tensor) -> Iterator[list[Any]]:
        outputs: list[Any] = []
        with ExitStack() as held:
            for block in blocks:
                handle = block.register_forward_hook(lambda *seen: outputs.append(seen[2]))
                held.callback(handle.remove)
            yield outputs

    monkeypatch.setattr(analysis, "gated", ungated)
    plain = Graph(llama.causal, write(part_of(llama.causal), tmp_path))
    sizes = [len(onnx.load(path / "analysis.onnx").graph.node) for path in (tmp_path, bundle)]
    assert sizes[0] <= sizes[1] - 2 * BLOCKS, "it has gates"
    for gated in llama.cases()[1::2]:
        for mine, theirs in zip(llama.run(gated), plain.run(gated), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_models_without_a_head_are_refused() -> None:
    """An encoder, or a bare backbone, has no logits."""
    model = build("bert")
    loaded = Loaded(model, None, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="BertModel has no language-model head"):
        analysis_part(loaded, examine(model), LAYERS, pad=0)


def test_cut_models_are_refused() -> None:
    """The head stands above the last block."""
    causal = build_causal("llama")
    loaded = Loaded(causal.base_model, causal, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="reads all 3 blocks"):
        analysis_part(loaded, examine(causal.base_model), LAYERS - 1, pad=0)


def test_the_bundle_holds_the_graph_and_its_weights_once(bundle: Path) -> None:
    """Score and analysis graph read one file, no larger than the model."""
    manifest = Bundle.load(bundle).manifest
    card = manifest.graphs["analysis"]
    assert (card.file, card.mode) == ("analysis.onnx", "analysis")
    assert card.inputs == ("input_ids", "attention_mask", "bypass", "keep")
    assert max(card.parity.largest.values()) <= card.parity.tolerance == 1e-5
    parameters = build_causal("llama", num_hidden_layers=BLOCKS).parameters()
    assert manifest.files["weights.data"].bytes <= sum(tensor.nbytes for tensor in parameters)


def test_a_trace_chooses_the_layers_of_the_next_export(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``trace --json`` prints it, ``export --layers @FILE`` reads it."""
    assert main(["trace", str(bundle), "w1 w2 w3", "--json", "--threads", "1"]) == 0
    traced = tmp_path / "trace.json"
    traced.write_text(capsys.readouterr().out)
    summary = json.loads(traced.read_text().splitlines()[-1])
    asked: list[Any] = []
    monkeypatch.setattr(command, "export", lambda *given: asked.append(given[2]))
    monkeypatch.setattr(command, "report", lambda _: [])
    assert main(["export", "model", "-o", "bundle", "--analysis"]) == 0
    assert main(["export", "model", "-o", "bundle", "--layers", f"@{traced}"]) == 0
    assert [options.layers for options in asked] == [None, summary["suggested_layers"]]
    assert [options.analysis for options in asked] == [True, False]


@pytest.mark.parametrize(
    "content", ["", "no json", "[7]", '{"layers": 7}', '{"suggested_layers": "7"}',
                '{"suggested_layers": true}', '{"suggested_layers": 7.5}'],
)  # fmt: skip
def test_a_file_that_is_no_trace_suggests_nothing(tmp_path: Path, content: str) -> None:
    """The message says what prints one."""
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(ArgumentTypeError, match="layerguard trace BUNDLE --input ROWS --json"):
        layers_argument(f"@{path}")


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "@no/such/file", ""])
def test_layers_that_are_no_number_and_no_file_are_refused(text: str) -> None:
    """A number is taken as it is."""
    assert layers_argument("12") == 12
    with pytest.raises(ArgumentTypeError, match="expected"):
        layers_argument(text)
