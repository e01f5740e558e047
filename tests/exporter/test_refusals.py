"""A model that cannot be exported raises an error that names the fault, and leaves no bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel, ByT5Tokenizer, T5Config, T5Model

from layerguard.exporter import Options, export
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import examine, feed_forwards
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.reference import References
from layerguard.runtime.errors import ExportError
from tests.exporter.models import LAYERS, build, save_model, save_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama and its tokenizer, no chat template."""
    return save_model(tmp_path_factory.mktemp("models") / "small-llama")


class Branching(nn.Module):
    """A feed-forward part that branches on its values."""

    def forward(self, states: Tensor) -> Tensor:
        """Double the states if their sum is positive."""
        return states * 2 if bool(states.sum() > 0) else states


class Eigen(nn.Module):
    """A feed-forward part with an operator that ONNX lacks."""

    def forward(self, states: Tensor) -> Tensor:
        """Shift by the largest eigenvalue of the states' covariance."""
        values = torch.linalg.eigvals(states.transpose(1, 2) @ states)
        return states + values.real.amax(1)[:, None, None]


@pytest.mark.parametrize(
    ("mlp", "words"),
    [
        (Branching(), ["'layers.1.mlp' (Branching)", "depend only on the shape"]),
        (Eigen(), ["layers.1.mlp", "(Eigen)", "linalg_eig", "other operators"]),
    ],
)
def test_a_module_that_cannot_be_exported_is_named(
    mlp: nn.Module, words: list[str], tmp_path: Path
) -> None:
    """The message has the module, the reason and what to try."""
    model = build("llama")
    model.layers[1].mlp = mlp
    architecture = examine(model)
    spec = score_graph(architecture, "pooled", LAYERS, 0, References(architecture))
    with pytest.raises(ExportError) as caught:
        write_graph(spec, tmp_path, "score.onnx", SharedWeights(tmp_path))
    for word in words:
        assert word in str(caught.value)


def test_a_graph_that_differs_from_the_model_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference beyond the tolerance stops the export; an older bundle is unchanged."""
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "manifest.json").write_text("an older bundle")
    gelu = torch.nn.functional.gelu
    monkeypatch.setattr(
        "layerguard.exporter.pipeline.write_graph",
        _write_changed(lambda states: gelu(states) * 1.001),
    )
    with pytest.raises(
        ExportError, match=r"float32 graph differs from the model.*difference.*expected at most"
    ):
        export(str(model), out, Options(decode="no"))
    assert (out / "manifest.json").read_text() == "an older bundle"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def _write_changed(activation: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    def write(spec: GraphSpec, *rest: Any) -> None:
        for name, module in spec.module.named_modules():
            if name.endswith("act_fn"):
                module.forward = activation
        write_graph(spec, *rest)

    return write


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    """It runs in Python only; the message says how to convert it."""
    folder = tmp_path / "slow"
    build("llama", vocab_size=400).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(ExportError, match=r"slow tokenizer \(ByT5Tokenizer\).*tokenizer\.json"):
        export(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """It has ids without an embedding."""
    folder = tmp_path / "mixed"
    build("llama").save_pretrained(folder)
    save_tokenizer(folder, words=150)
    with pytest.raises(ExportError, match="ids up to 149, the model 101"):
        export(str(folder), tmp_path / "out")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """The message names the folder."""
    folder = tmp_path / "bare"
    build("llama").save_pretrained(folder)
    with pytest.raises(ExportError, match="bare has no tokenizer"):
        export(str(folder), tmp_path / "out")


def test_missing_weights_are_refused(model: Path, tmp_path: Path) -> None:
    """A missing parameter would be random; the message names it."""
    folder = tmp_path / "holes"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["layers.1.self_attn.o_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"lacks 1 parameters.*layers\.1\.self_attn\.o_proj"):
        export(str(folder), tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no config.json"),
        ({"model_index.json": "{}"}, "files of diffusers"),
        ({"config.json": json.dumps({"architecture": "resnet18"})}, "files of timm"),
        ({"config.json": json.dumps({"model_type": "no-such-model"})}, "no-such-model"),
        ({"config.json": "{ not json"}, "not a valid JSON"),
    ],
)
def test_a_folder_without_a_model_is_refused(
    files: dict[str, str], words: str, tmp_path: Path
) -> None:
    """The message has the folder's name and the content of the folder."""
    folder = tmp_path / "nothing"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.raises(ExportError, match=words) as caught:
        export(str(folder), tmp_path / "out")
    assert str(caught.value).startswith("nothing cannot be loaded")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A path is not treated as a hub id."""
    with pytest.raises(ExportError, match=r"nowhere: no such folder; expected one with config"):
        export(str(tmp_path / "nowhere"), tmp_path / "out")


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    """It has two stacks of blocks."""
    T5Model(T5Config(d_model=16, d_ff=16, d_kv=4, num_layers=1, vocab_size=50)).save_pretrained(
        tmp_path / "t5"
    )
    with pytest.raises(ExportError, match=r"t5 is an encoder-decoder.*expected one stack"):
        export(str(tmp_path / "t5"), tmp_path / "out")


def test_shared_blocks_are_refused() -> None:
    """ALBERT runs one block several times, so there is no list of blocks."""
    config = AlbertConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=32
    )
    with pytest.raises(ExportError, match="no list of 3 blocks"):
        examine(AlbertModel(config))


def test_a_block_without_a_feed_forward_part_is_refused() -> None:
    """The message lists the children of the block."""
    model = build("llama")
    model.layers[1].net = model.layers[1].mlp.gate_proj
    del model.layers[1]._modules["mlp"]
    architecture = examine_blocks(model)
    with pytest.raises(ExportError, match=r"block 2 .*self_attn.*expected one named mlp"):
        feed_forwards(architecture)


def examine_blocks(model: Any) -> Any:
    """An architecture with a second block that cannot run."""
    whole = examine(build("llama"))
    return type(whole)(
        **{field: getattr(whole, field) for field in whole.__slots__ if field != "blocks"},
        blocks=tuple(model.layers),
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(layers=0), "layers 0: the model has 3 blocks; expected 1 to 3"),
        (Options(layers=9), "expected 1 to 3"),
        (Options(max_tokens=65), "max tokens 65: the model takes 64"),
        (Options(max_tokens=2), "expected at least 8"),
        (Options(template="chat"), "no chat template"),
        (Options(template="no slot"), "text with {prompt} once"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    options: Options, words: str, model: Path, tmp_path: Path
) -> None:
    """The message has the option and the allowed values."""
    with pytest.raises(ExportError) as caught:
        export(str(model), tmp_path / "out", options)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()
