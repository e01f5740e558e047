"""A whole export: the written files, and that they are reproducible."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from layerguard.exporter import Options, export
from layerguard.exporter.fused.pipeline import fuse
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.proof.tolerance import TOLERANCES
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.engines.transformers import LastBlock, states
from layerguard.runtime.types import Array
from tests.exporter.models import LAYERS, VOCABULARY, WIDTH, save_model
from tests.random_detectors import freeze, make_params

CHAT = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama, its head, tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("models") / "small-llama"
    return save_model(folder, head=True, chat_template=CHAT)


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """That model exported with the default options."""
    out = tmp_path_factory.mktemp("bundles") / "full"
    export(str(model), out)
    return Bundle.load(out)


def run(bundle: Bundle) -> dict[str, Array]:
    """All outputs for two rows, one of which is padded on the left."""
    session = onnxruntime.InferenceSession(str(bundle.path / "score.onnx"))
    ids = np.arange(5, 23).reshape(2, 9)
    mask = np.ones_like(ids)
    ids[1, :4], mask[1, :4] = 0, 0
    names = [output.name for output in session.get_outputs()]
    feeds = {"input_ids": ids, "attention_mask": mask}
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_the_manifest_describes_the_export(bundle: Bundle) -> None:
    """It has model, text rules, outputs and differences, and the bundle loads."""
    manifest = bundle.manifest
    card = manifest.model
    assert (card.id, card.architecture, card.kind) == ("small-llama", "LlamaModel", "decoder")
    assert (card.layers, card.total_layers, card.width) == (LAYERS, LAYERS, WIDTH)
    assert (card.vocabulary, card.dtype, len(card.revision)) == (VOCABULARY, "float32", 64)
    assert (manifest.text.template, manifest.text.max_tokens) == ("chat", 64)
    assert manifest.text.special_tokens["bos_token"] == "<s>"
    assert manifest.text.end_token_ids == (2,)
    graph = manifest.graphs["score"]
    assert graph.mode == "pooled"
    kinds = {(output.kind, output.layer) for output in graph.outputs}
    assert {("last", 0), ("mean", LAYERS), ("final_norm_last", LAYERS), ("state", 1)} <= kinds
    assert graph.parity.largest.keys() == {output.name for output in graph.outputs}
    assert max(graph.parity.largest.values()) <= graph.parity.tolerance == 1e-5
    assert {"torch", "transformers", "onnxruntime", "layerguard"} <= manifest.versions.keys()


def test_states_of_transformers_equal_those_of_the_graph(model: Path, bundle: Bundle) -> None:
    """The runtime's transformers engine and the graph agree; the last state is before the norm."""
    llama = AutoModel.from_pretrained(model).eval()
    ids = torch.arange(5, 14)[None]
    with LastBlock(llama.layers[-1]) as last, torch.inference_mode():
        hidden = llama(input_ids=ids, output_hidden_states=True).hidden_states
    recorded = states(hidden, last)
    session = onnxruntime.InferenceSession(str(bundle.path / "score.onnx"))
    named = {card.layer: card.name for card in bundle.manifest.graphs["score"].outputs
             if card.kind == "state"}  # fmt: skip
    feeds = {"input_ids": ids.numpy(), "attention_mask": np.ones_like(ids)}
    for layer, state in zip(range(LAYERS + 1), recorded, strict=True):
        (exported,) = session.run([named[layer]], feeds)
        np.testing.assert_allclose(state, exported[0], atol=1e-4)
    assert np.abs(recorded[-1] - hidden[-1][0].numpy()).max() > 0.1


def test_the_bundle_has_files_for_a_runtime_without_torch(bundle: Bundle) -> None:
    """Graphs, weights, a tokenizer without truncation or padding, and the chat template."""
    names = {path.name for path in bundle.path.iterdir()}
    plain = {"manifest.json", "score.onnx", "decode.onnx", "weights.data", "tokenizer.json"}
    assert names == plain | {"chat_template.jinja"}
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert len(tokenizer.encode("w1 w2 w3 w4 w5 w6 w7 w8 w9").ids) == 10
    assert bundle.chat_template == CHAT


@pytest.mark.parametrize("name", ["score", "decode"])
def test_the_graph_has_standard_operators_and_no_paths(bundle: Bundle, name: str) -> None:
    """ONNX operators only, named free axes, no path or stack of the machine that traced it."""
    data = (bundle.path / f"{name}.onnx").read_bytes()
    here = [str(path).encode() for path in (Path(__file__).parents[2], sys.prefix, bundle.path)]
    for trace in (b".py", b"site-packages", b"pkg.torch", *here):
        assert trace not in data, trace
    graph = onnx.load_from_string(data)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    axes = {
        item.name: [axis.dim_param or axis.dim_value for axis in item.type.tensor_type.shape.dim]
        for item in graph.graph.input
    }
    assert axes["input_ids"] == ["batch", "tokens"]
    if name == "score":
        assert sum(node.op_type == "Attention" for node in graph.graph.node) == LAYERS
        return
    assert axes["attention_mask"] == ["batch", "past + tokens"]
    assert axes["steering"] == [LAYERS, "directions", WIDTH]
    assert axes["past_key_00"] == axes["past_value_02"] == ["batch", 2, "past", 8]


def test_the_decode_graph_is_in_the_manifest(bundle: Bundle) -> None:
    """Its inputs, its outputs with logits, and their differences from PyTorch."""
    graph = bundle.manifest.graphs["decode"]
    assert (graph.mode, graph.file) == ("decode", "decode.onnx")
    assert graph.inputs[:4] == ("input_ids", "attention_mask", "steering", "past_key_00")
    kinds = {(output.kind, output.layer) for output in graph.outputs}
    blocks = range(1, LAYERS + 1)
    assert {("logits", LAYERS), ("final_norm", LAYERS), ("state", 0)} <= kinds
    assert {(kind, block) for kind in ("key", "value") for block in blocks} <= kinds
    assert graph.parity.largest.keys() == {output.name for output in graph.outputs}
    assert max(graph.parity.largest.values()) <= graph.parity.tolerance == 1e-5


def test_both_graphs_share_their_weights(bundle: Bundle) -> None:
    """The matrices of the blocks are stored once; only the decode graph has the head."""
    places = {}
    for name in ("score", "decode"):
        graph = onnx.load(bundle.path / f"{name}.onnx", load_external_data=False).graph
        outside = [tensor for tensor in graph.initializer if tensor.external_data]
        entries = [{entry.key: entry.value for entry in t.external_data} for t in outside]
        places[name] = {(int(item["offset"]), int(item["length"])) for item in entries}
    assert places["score"] <= places["decode"]
    (head,) = places["decode"] - places["score"]
    assert head[1] == VOCABULARY * WIDTH * 4
    everything = places["decode"] | places["score"]
    assert (bundle.path / "weights.data").stat().st_size == sum(size for _, size in everything)


def test_two_exports_are_bytewise_equal(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    """Also in another process with another hash seed."""
    code = "import sys; from layerguard.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", code, "export", str(model), "-o", str(tmp_path / "again")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
    )
    assert Bundle.load(tmp_path / "again").id == bundle.id


def test_fewer_layers_are_exact(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The outputs of the first blocks are bit-identical, and other weights are removed."""
    export(str(model), tmp_path / "cut", Options(layers=2, decode="no"))
    cut = Bundle.load(tmp_path / "cut")
    assert (cut.manifest.model.layers, cut.manifest.model.total_layers) == (2, LAYERS)
    full = run(bundle)
    for name, value in run(cut).items():
        np.testing.assert_array_equal(value, full[name], err_msg=name)
    graph = onnx.load(cut.path / "score.onnx", load_external_data=False).graph
    names = " ".join(tensor.name for tensor in graph.initializer)
    assert "layers.1." in names
    assert "layers.2." not in names
    size = {path: (path / "weights.data").stat().st_size for path in (cut.path, bundle.path)}
    assert size[cut.path] < size[bundle.path]
    kinds = {output.kind for output in cut.manifest.graphs["score"].outputs}
    assert kinds == {"last", "mean", "state"}, "only the last block has the final norm"


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_lower_precision_graphs_are_within_the_tolerance(
    model: Path, bundle: Bundle, tmp_path: Path, dtype: str
) -> None:
    """float16 and int8 graphs are smaller; pooled outputs are float32."""
    exported = export(str(model), tmp_path / dtype, Options(dtype=dtype, decode="yes"))
    coarse = Bundle.load(tmp_path / dtype)
    assert coarse.manifest.model.dtype == dtype
    for graph, proof in exported.proofs.items():
        parity = coarse.manifest.graphs[graph].parity
        assert max(parity.largest.values()) <= parity.tolerance == TOLERANCES[dtype].value
        assert parity.largest == proof.cosine_distance
        assert max(proof.largest.values()) > 1e-4, "the graph was not quantised"
    full = run(bundle)
    for name, value in run(coarse).items():
        half = dtype == "float16" and name.startswith("state")
        assert value.dtype == (np.float16 if half else np.float32)
        assert np.abs(value - full[name]).max() < 0.1 * np.abs(full[name]).max()
    sizes = [(b.path / "weights.data").stat().st_size for b in (coarse, bundle)]
    assert sizes[0] < 0.6 * sizes[1]
    frozen = {"lcf": make_params(LAYERS, WIDTH)["lcf"]}
    fused = fuse(freeze(coarse.path, tmp_path / "fused", frozen), threads=1)
    assert fused.cards["score"].proof.flips == 0  # fuse raises if scores differ


def test_float16_norms_that_scale_in_float32(tmp_path: Path) -> None:
    """Gemma's norms multiply by a float32 scale; ONNX Runtime loads the float16 graphs."""
    gemma = save_model(tmp_path / "model", "gemma2", head=True)
    exported = export(str(gemma), tmp_path / "bundle", Options(dtype="float16", decode="yes"))
    assert exported.proofs.keys() == {"score", "decode"}


def test_states_mode_gives_every_token_and_mlp_means(
    model: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """``states`` has one output per layer; ``mlp`` adds a mean per block."""
    options = Options(mode="states", mlp=True, template="{prompt}", decode="no")
    export(str(model), tmp_path / "states", options)
    outputs = run(Bundle.load(tmp_path / "states"))
    states = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    assert set(outputs) == {*states, "final_norm", "mlp_mean_01", "mlp_mean_02", "mlp_mean_03"}
    assert all(outputs[name].shape == (2, 9, WIDTH) for name in states)
    pooled = run(bundle)
    for layer, name in enumerate(states):
        np.testing.assert_allclose(
            outputs[name][1, 4:].mean(0), pooled[f"mean_{layer:02}"][1], atol=1e-5
        )


def test_the_revision_depends_on_configuration_and_weights(model: Path, bundle: Bundle) -> None:
    """For a folder, it depends on nothing else."""
    assert load(ModelSource(str(model))).revision == bundle.manifest.model.revision
    config = json.loads((model / "config.json").read_text())
    other = model.with_name("other")
    other.mkdir()
    for path in model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert load(ModelSource(str(other))).revision != bundle.manifest.model.revision
