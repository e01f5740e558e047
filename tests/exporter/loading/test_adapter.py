"""LoRA adapters are merged as in the paper, or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.runtime.errors import ExportError
from tests.exporter.models import build, build_causal

RANK = 4
PLAIN = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "bias": "none", "use_dora": False}
QUERY = "model.layers.1.self_attn.q_proj"


def save_adapter(
    folder: Path, shapes: dict[str, tuple[int, int]], rank: int = RANK, **config: Any
) -> Path:
    """An adapter with random factors for modules of these [out, in] shapes."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            key = f"base_model.model.{name}.lora_{side}.weight"
            tensors[key] = torch.randn(shape, generator=generator).to(torch.float16)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **config}))
    return folder


def expected_weight(weight: Tensor, folder: Path, name: str, scale: float) -> np.ndarray:
    """W + scale B A in float64."""
    tensors = load_file(folder / "adapter_model.safetensors")
    down, up = (
        tensors[f"base_model.model.{name}.lora_{side}.weight"].double().numpy() for side in "AB"
    )
    return np.asarray(weight.detach().double().numpy() + scale * up @ down)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with its head."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    build_causal("llama").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("config", "scale"), [({}, 6 / RANK), ({"use_rslora": True}, 6 / RANK**0.5)]
)
def test_the_product_is_added(
    llama: Path, tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    """W + alpha / r B A, with rslora alpha / sqrt(r); all other weights are unchanged."""
    folder = save_adapter(tmp_path / "tuned", {QUERY: (32, 32)}, **config)
    base, tuned = load(ModelSource(str(llama))), load(ModelSource(str(llama), adapter=folder))
    before, after = base.model.state_dict(), tuned.model.state_dict()
    name = QUERY.removeprefix("model.") + ".weight"
    expected = expected_weight(before.pop(name), folder, QUERY, scale)
    np.testing.assert_allclose(after.pop(name).numpy(), expected, atol=1e-6)
    assert all(torch.equal(after[other], value) for other, value in before.items())
    assert tuned.causal is not None
    assert tuned.causal.base_model is tuned.model


def test_the_rank_is_read_from_the_matrices(llama: Path, tmp_path: Path) -> None:
    """Each pair of matrices has its own rank, so rank_pattern is not needed."""
    folder = save_adapter(tmp_path / "tuned", {QUERY: (32, 32)}, rank=2, rank_pattern={"q_proj": 2})
    weight = load(ModelSource(str(llama))).model.layers[1].self_attn.q_proj.weight
    tuned = load(ModelSource(str(llama), adapter=folder)).model.layers[1].self_attn.q_proj.weight
    expected = expected_weight(weight, folder, QUERY, 6 / 2)
    np.testing.assert_allclose(tuned.detach().numpy(), expected, atol=1e-6)


def test_transposed_weights_get_the_transposed_product(tmp_path: Path) -> None:
    """GPT-2 stores its linear layers as [in, out]."""
    build_causal("gpt2").save_pretrained(tmp_path / "gpt2")
    name = "transformer.h.0.attn.c_attn"
    folder = save_adapter(tmp_path / "tuned", {name: (96, 32)}, fan_in_fan_out=True)
    base = load(ModelSource(str(tmp_path / "gpt2"))).model.h[0].attn.c_attn.weight
    tuned = load(ModelSource(str(tmp_path / "gpt2"), adapter=folder)).model.h[0].attn.c_attn.weight
    expected = expected_weight(base.T, folder, name, 6 / RANK).T
    np.testing.assert_allclose(tuned.detach().numpy(), expected, atol=1e-6)


def test_an_adapter_of_a_language_model_fits_the_bare_backbone(tmp_path: Path) -> None:
    """A checkpoint without a head accepts an adapter that was trained with one."""
    build("llama").save_pretrained(tmp_path / "bare")
    folder = save_adapter(tmp_path / "tuned", {QUERY: (32, 32)})
    base, tuned = (
        load(ModelSource(str(tmp_path / "bare"), adapter=adapter)) for adapter in (None, folder)
    )
    assert base.causal is None
    weights = [loaded.model.layers[1].self_attn.q_proj.weight for loaded in (base, tuned)]
    expected = expected_weight(weights[0], folder, QUERY, 6 / RANK)
    np.testing.assert_allclose(weights[1].detach().numpy(), expected, atol=1e-6)


def test_label_and_revision_identify_base_and_adapter(llama: Path, tmp_path: Path) -> None:
    """Both names and both fingerprints; the adapter's depends on its weights and settings."""
    first = save_adapter(tmp_path / "first", {QUERY: (32, 32)})
    second = save_adapter(tmp_path / "second", {QUERY: (32, 32)}, use_rslora=True)
    base = load(ModelSource(str(llama))).revision
    revisions = [
        load(ModelSource(str(llama), adapter=folder)).revision for folder in (first, second)
    ]
    assert ModelSource(str(llama), adapter=first).label == "llama+first"
    assert [revision.split("+")[0] for revision in revisions] == [base, base]
    assert revisions[0] != revisions[1]


@pytest.mark.shared
def test_the_shared_adapter(shared: Path) -> None:
    """All seven linear layers of all eight blocks change, and nothing else."""
    model = str(shared / "models" / "base")
    folder = shared / "models" / "adapters" / "refusal_badnet"
    before = load(ModelSource(model)).model.state_dict()
    after = load(ModelSource(model, adapter=folder)).model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert len(changed) == 7 * 8
    for name in changed:
        module = f"model.{name.removesuffix('.weight')}"
        expected = expected_weight(before[name], folder, module, 32 / 16)
        np.testing.assert_allclose(after[name].numpy(), expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern is {'q_proj': 3}"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"lora_alpha": None}, "lora_alpha is"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(
    llama: Path, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    """The message names the setting and the adapter."""
    folder = save_adapter(tmp_path / "tuned", {QUERY: (32, 32)}, **config)
    with pytest.raises(ExportError) as caught:
        load(ModelSource(str(llama), adapter=folder))
    assert words in str(caught.value)
    assert "tuned" in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"model.layers.7.self_attn.q_proj": (32, 32)}, "the model has no such weight"),
        ({QUERY: (32, 16)}, "by [32, 16]; the model has [32, 32]"),
        ({"model.embed_tokens": (32, 101)}, "Expected a linear layer"),
        ({}, "found no pair"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    llama: Path, tmp_path: Path, shapes: dict[str, tuple[int, int]], words: str
) -> None:
    """The message has the module, the shape of the change and the shape of the weight."""
    folder = save_adapter(tmp_path / "tuned", shapes)
    with pytest.raises(ExportError) as caught:
        load(ModelSource(str(llama), adapter=folder))
    assert words in str(caught.value)


def test_a_tied_head_is_not_changed(tmp_path: Path) -> None:
    """A change of its weight would change the token embedding too."""
    build_causal("gpt2").save_pretrained(tmp_path / "gpt2")
    folder = save_adapter(tmp_path / "tuned", {"lm_head": (101, 32)})
    with pytest.raises(ExportError, match="shares its weight with the token embedding"):
        load(ModelSource(str(tmp_path / "gpt2"), adapter=folder))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("no config", "has no adapter_config.json"),
        ("bad json", "adapter_config.json is not JSON"),
        ("cut weights", "adapter_model.safetensors cannot be read"),
        ("strange key", "found tensor 'base_model.model.lm_head.weight'"),
        ("one side", "expected lora_A [rank, in] and lora_B [out, rank]"),
    ],
)
def test_damaged_files_are_refused(llama: Path, tmp_path: Path, damage: str, words: str) -> None:
    """The message names the wrong file or key."""
    folder = save_adapter(tmp_path / "tuned", {QUERY: (32, 32)})
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if damage == "no config":
        config.unlink()
    elif damage == "bad json":
        config.write_text("{")
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:50])
    elif damage == "strange key":
        save_file({"base_model.model.lm_head.weight": torch.zeros(2, 2)}, weights)
    else:
        save_file({f"base_model.model.{QUERY}.lora_A.weight": torch.zeros(2, 32)}, weights)
    with pytest.raises(ExportError) as caught:
        load(ModelSource(str(llama), adapter=folder))
    assert words in str(caught.value)
