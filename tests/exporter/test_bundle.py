"""A whole export: what it writes, and that it writes the same again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from layerguard.exporter import Options, export
from layerguard.exporter.parity import GATES
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.types import Array
from tests.exporter.models import LAYERS, VOCABULARY, WIDTH, save_model

CHAT = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama, its tokenizer and a chat template."""
    return save_model(tmp_path_factory.mktemp("models") / "small-llama", chat_template=CHAT)


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """That model exported with the defaults."""
    out = tmp_path_factory.mktemp("bundles") / "full"
    export(str(model), out)
    return Bundle.load(out)


def run(bundle: Bundle) -> dict[str, Array]:
    """All outputs for two rows, one of them padded on the left."""
    session = onnxruntime.InferenceSession(str(bundle.path / "score.onnx"))
    ids = np.arange(5, 23).reshape(2, 9)
    mask = np.ones_like(ids)
    ids[1, :4], mask[1, :4] = 0, 0
    names = [output.name for output in session.get_outputs()]
    feeds = {"input_ids": ids, "attention_mask": mask}
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_the_manifest_says_what_was_exported(bundle: Bundle) -> None:
    """Model, text rules, outputs and proof are all there, and the bundle loads."""
    manifest = bundle.manifest
    card = manifest.model
    assert (card.id, card.architecture, card.kind) == ("small-llama", "LlamaModel", "decoder")
    assert (card.layers, card.total_layers, card.width) == (LAYERS, LAYERS, WIDTH)
    assert (card.vocabulary, card.dtype, len(card.revision)) == (VOCABULARY, "float32", 64)
    assert (manifest.text.template, manifest.text.max_tokens) == ("chat", 64)
    assert manifest.text.special_tokens["bos_token"] == "<s>"
    graph = manifest.graphs["score"]
    assert graph.mode == "pooled"
    kinds = {(output.kind, output.layer) for output in graph.outputs}
    assert {("last", 0), ("mean", LAYERS), ("final_norm_last", LAYERS)} <= kinds
    assert graph.parity.largest.keys() == {output.name for output in graph.outputs}
    assert max(graph.parity.largest.values()) <= graph.parity.tolerance == 1e-4
    assert {"torch", "transformers", "onnxruntime", "layerguard"} <= manifest.versions.keys()


def test_the_bundle_holds_files_that_serve_without_torch(bundle: Bundle) -> None:
    """Graph, weights, tokenizer without truncation or padding, and the chat template as text."""
    names = {path.name for path in bundle.path.iterdir()}
    plain = {"manifest.json", "score.onnx", "weights.data", "tokenizer.json"}
    assert names == plain | {"chat_template.jinja"}
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert len(tokenizer.encode("w1 w2 w3 w4 w5 w6 w7 w8 w9").ids) == 10
    assert bundle.chat_template == CHAT


def test_the_graph_is_small_standard_and_anonymous(bundle: Bundle) -> None:
    """Only ONNX operators, free axes by name, no path or stack of the machine that traced it."""
    data = (bundle.path / "score.onnx").read_bytes()
    here = [str(path).encode() for path in (Path(__file__).parents[2], sys.prefix, bundle.path)]
    for trace in (b".py", b"site-packages", b"pkg.torch", *here):
        assert trace not in data, trace
    graph = onnx.load_from_string(data)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    axes = graph.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in axes] == ["batch", "tokens"]
    assert sum(node.op_type == "Attention" for node in graph.graph.node) == LAYERS


def test_two_exports_are_the_same_to_the_byte(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    """In another process with other hash seeds, too."""
    code = "import sys; from layerguard.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", code, "export", str(model), "-o", str(tmp_path / "again")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
    )
    assert Bundle.load(tmp_path / "again").id == bundle.id


def test_a_cut_is_exact(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The first blocks alone give the very same numbers, and the weights above are gone."""
    export(str(model), tmp_path / "cut", Options(layers=2))
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
    assert kinds == {"last", "mean"}, "the final norm belongs to the last block alone"


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_coarser_graphs_run_and_are_close(
    model: Path, bundle: Bundle, tmp_path: Path, dtype: str
) -> None:
    """float16 and int8 stay within their gates; they are smaller; pooled outputs are float32."""
    _, comparison = export(str(model), tmp_path / dtype, Options(dtype=dtype))
    coarse = Bundle.load(tmp_path / dtype)
    assert coarse.manifest.model.dtype == dtype
    parity = coarse.manifest.graphs["score"].parity
    assert max(parity.largest.values()) <= parity.tolerance == GATES[dtype].limit
    assert parity.largest == comparison.cosine_distance
    assert max(comparison.largest.values()) > 1e-4, "it was not quantised at all"
    full = run(bundle)
    for name, value in run(coarse).items():
        assert value.dtype == np.float32
        assert np.abs(value - full[name]).max() < 0.1 * np.abs(full[name]).max()
    sizes = [(b.path / "weights.data").stat().st_size for b in (coarse, bundle)]
    assert sizes[0] < 0.6 * sizes[1]


def test_states_mode_gives_every_token_and_mlp_taps(
    model: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """``states`` has one output a layer, never a stack; ``mlp`` adds a mean for each block."""
    export(str(model), tmp_path / "states", Options(mode="states", mlp=True, template="{prompt}"))
    outputs = run(Bundle.load(tmp_path / "states"))
    states = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    assert set(outputs) == {*states, "final_norm", "mlp_mean_01", "mlp_mean_02", "mlp_mean_03"}
    assert all(outputs[name].shape == (2, 9, WIDTH) for name in states)
    pooled = run(bundle)
    for layer, name in enumerate(states):
        np.testing.assert_allclose(
            outputs[name][1, 4:].mean(0), pooled[f"mean_{layer:02}"][1], atol=1e-5
        )


def test_the_revision_is_that_of_the_weights(model: Path, bundle: Bundle) -> None:
    """A folder's revision follows its configuration and weights and nothing else."""
    from layerguard.exporter.loading import Source, load  # noqa: PLC0415

    assert load(Source(str(model))).revision == bundle.manifest.model.revision
    config = json.loads((model / "config.json").read_text())
    other = model.with_name("other")
    other.mkdir()
    for path in model.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert load(Source(str(other))).revision != bundle.manifest.model.revision
