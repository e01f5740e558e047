"""Which part of a checkpoint is exported, and its label."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextModel,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
)

from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.runtime.errors import ExportError
from tests.exporter.models import ARCHITECTURES, LAYERS, build, build_causal


def test_a_causal_model_gives_its_backbone_in_float32(tmp_path: Path) -> None:
    """A causal model in bfloat16 gives its backbone in float32, without random parameters."""
    config = build("llama").config
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = load(ModelSource(str(tmp_path)))
    assert type(loaded.model).__name__ == "LlamaModel"
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert not loaded.missing
    assert isinstance(loaded.causal, LlamaForCausalLM)
    assert loaded.causal.model is loaded.model
    torch.testing.assert_close(
        loaded.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight.float()
    )


def test_a_checkpoint_without_head_weights_has_no_head(tmp_path: Path) -> None:
    """Neither a bare backbone nor a causal model without weights of the head has one."""
    build("llama").save_pretrained(tmp_path / "bare")
    assert load(ModelSource(str(tmp_path / "bare"))).causal is None
    causal = build_causal("llama")
    weights = {name: value for name, value in causal.state_dict().items() if "lm_head" not in name}
    causal.save_pretrained(tmp_path / "without-head", state_dict=weights)
    loaded = load(ModelSource(str(tmp_path / "without-head")))
    assert loaded.causal is None
    assert not loaded.missing


def test_the_text_part_of_a_multimodal_model_is_exported(tmp_path: Path) -> None:
    """Gemma 3 has a vision tower; its text decoder is exported."""
    config = Gemma3Config(
        text_config=ARCHITECTURES["gemma3"][1],
        vision_config=SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            image_size=16, patch_size=8,
        ).to_dict(),
        mm_tokens_per_image=4, image_token_index=9, boi_token_index=10, eoi_token_index=11,
    )  # fmt: skip
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = load(ModelSource(str(tmp_path)))
    assert isinstance(loaded.model, Gemma3TextModel)
    assert loaded.causal is None
    assert examine(loaded.model).layers == LAYERS


def test_capped_attention_is_not_fused(tmp_path: Path) -> None:
    """Gemma 2 caps its attention logits, which fused attention does not support."""
    build("gemma2").save_pretrained(tmp_path)
    assert load(ModelSource(str(tmp_path))).model.config._attn_implementation == "eager"


def test_a_label_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label is the name of the folder for any spelling of its path, or the hub id."""
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path / "my-model")
    assert ModelSource(str(tmp_path / "my-model")).label == "my-model"
    assert ModelSource(".").label == "my-model"
    assert ModelSource("../my-model/").label == "my-model"
    assert ModelSource("someone/some-model").label == "someone/some-model"


def _save_quantised(folder: Path, quantisation: dict[str, Any]) -> None:
    """Save a small Llama with a quantised configuration."""
    build_causal("llama").save_pretrained(folder)
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "quantization_config": quantisation}
    path.write_text(json.dumps(config))


def test_weights_with_scales_that_the_model_drops_are_refused(tmp_path: Path) -> None:
    """FP8 weights without their scales are wrong; transformers only warns."""
    _save_quantised(tmp_path, {"quant_method": "modelopt", "quant_algo": "FP8"})
    weights = load_file(tmp_path / "model.safetensors")
    for side in ("weight", "input"):
        weights[f"model.layers.0.mlp.up_proj.{side}_scale"] = torch.ones(())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"by modelopt and has 2 scales that LlamaForCausalLM d"):
        load(ModelSource(str(tmp_path)))


def test_a_quantised_checkpoint_without_its_package_is_refused(tmp_path: Path) -> None:
    """The message names the method, whatever transformers raises for the missing package."""
    _save_quantised(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 128})
    with pytest.raises(ExportError, match=r"cannot be loaded .*quantised by gptq, expected plain"):
        load(ModelSource(str(tmp_path)))


def test_the_backbone_of_a_model_that_is_its_own_base_model(tmp_path: Path) -> None:
    """For Llama 4's text model, base_model is the model itself; the backbone is its decoder."""
    config = Llama4TextConfig(
        vocab_size=101, hidden_size=32, intermediate_size=48, intermediate_size_mlp=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_local_experts=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    Llama4ForCausalLM(config).save_pretrained(tmp_path)
    loaded = load(ModelSource(str(tmp_path)))
    assert type(loaded.model).__name__ == "Llama4TextModel"
    assert loaded.causal is not None
    assert loaded.causal.model is loaded.model
