"""A GGUF file is loaded as the model that was converted to it, or refused."""

import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers import modeling_gguf_pytorch_utils as transformers_gguf

from layerguard.exporter.loading import gguf_model
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.runtime.errors import ExportError
from tests.exporter.models import build_causal
from tests.gguf_files import CONVERTED, VOCABULARY, save_gguf, smollm2, write

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "bos_token_id": 286, "eos_token_id": 285, "pad_token_id": None,
}  # fmt: skip


def small(architecture: str, **changes: Any) -> PreTrainedModel:
    """A causal model of an architecture that GGUF supports, with tied heads as in its files."""
    sizes = SIZES if architecture == "gpt2" else {**SIZES, "intermediate_size": 64}
    if architecture in ("gemma2", "gemma3"):
        sizes = {**sizes, "query_pre_attn_scalar": 8, "tie_word_embeddings": True}
    if architecture == "gemma3":  # llama.cpp's pattern: every sixth layer has full attention
        sizes = {**sizes, "layer_types": ["sliding_attention"] * 3}
    return build_causal(architecture, **{**sizes, **changes})


def states(model: PreTrainedModel) -> list[torch.Tensor]:
    """Hidden states of one row of 40 tokens, and the logits."""
    ids = torch.arange(3, 43)[None] * 7 % VOCABULARY
    with torch.inference_mode():
        run = model(input_ids=ids, output_hidden_states=True)
    return [*run.hidden_states, run.logits]


@pytest.mark.parametrize("architecture", CONVERTED)
def test_a_loaded_file_equals_the_converted_model(architecture: str, tmp_path: Path) -> None:
    """States and logits are equal for every architecture, also if its converter permutes rows."""
    model = small(architecture)
    path = save_gguf(tmp_path / "small.gguf", model, architecture)
    loaded = load(ModelSource(str(path)))
    assert loaded.causal is not None
    assert not loaded.missing
    for actual, expected in zip(states(loaded.causal), states(model), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", CONVERTED)
def test_tensor_names_equal_those_of_a_full_search(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of all submodules gives the same names, but builds a table for each of them."""
    model = small(architecture)
    tables: list[object] = []
    build_table = cache(gguf.get_tensor_name_map)

    def counted(*arguments: Any) -> Any:
        tables.append(arguments)
        return build_table(*arguments)

    monkeypatch.setattr(gguf, "get_tensor_name_map", counted)
    processor_class = transformers_gguf.TENSOR_PROCESSORS.get(
        architecture, transformers_gguf.TensorProcessor
    )
    names = gguf_model._tensor_names(model, processor_class(config=model.config.to_dict()))
    assert len(tables) == 1 + len(list(model.children()))
    processor = processor_class(config=model.config.to_dict())
    assert names == transformers_gguf.get_gguf_hf_weights_map(model, processor)


def test_weights_are_dequantised_like_the_gguf_package_does(tmp_path: Path) -> None:
    """For a Q8_0 matrix; the types are listed by descending share."""
    model = small("qwen2")
    q8 = gguf.GGMLQuantizationType.Q8_0
    path = save_gguf(tmp_path / "small.Q8_0.gguf", model, "qwen2", type=q8)
    loaded = load(ModelSource(str(path)))
    before = model.model.layers[1].mlp.up_proj.weight.detach().numpy()
    after = loaded.model.layers[1].mlp.up_proj.weight.detach().numpy()
    np.testing.assert_array_equal(after, gguf.dequantize(gguf.quantize(before, q8), q8))
    assert loaded.quantisation == "Q8_0, F32"


def test_label_and_revision_come_from_the_file(tmp_path: Path) -> None:
    """The file's name without its folder, and its sha256; also if the folder is given."""
    path = save_gguf(tmp_path / "Small-3L.F32.gguf", small("llama"), "llama")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in (path, tmp_path):
        source = ModelSource(str(name))
        assert source.label == "Small-3L.F32"
        assert load(source).revision == digest


def test_a_folder_of_several_files_is_refused(tmp_path: Path) -> None:
    """The message lists the files; each can be loaded by its own name."""
    for name in ("small.Q4_0.gguf", "small.Q8_0.gguf"):
        save_gguf(tmp_path / name, small("llama"), "llama")
    with pytest.raises(ExportError, match=r"2 GGUF files \(small\.Q4_0\.gguf, small\.Q8_0\.gguf\)"):
        load(ModelSource(str(tmp_path)))
    assert load(ModelSource(str(tmp_path / "small.Q8_0.gguf"))).quantisation == "F32"


def test_weights_in_another_format_come_first(tmp_path: Path) -> None:
    """In a folder with safetensors and a GGUF file, safetensors is loaded."""
    model = small("llama")
    model.save_pretrained(tmp_path)
    save_gguf(tmp_path / "small.gguf", small("llama", num_hidden_layers=2), "llama")
    loaded = load(ModelSource(str(tmp_path)))
    assert (len(loaded.model.layers), loaded.quantisation) == (3, "")


@pytest.mark.parametrize(
    ("architecture", "settings", "words"),
    [
        ("llama", {"llama.rope.scaling.type": "longrope"}, "rope.scaling.type = longrope"),
        ("llama", {"llama.attention.scale": 0.5}, "attention.scale = 0.5"),
        ("phi3", {"phi3.rope.dimension_count": 4}, "rope.dimension_count = 4 (it rotates 8 of 8)"),
        ("qwen2", {"qwen2.attention.sliding_window": 8}, "attention.sliding_window = 8"),
        ("llama", {"llama.embedding_scale": 2.0}, "embedding_scale = 2.0"),
        ("qwen2", {"qwen2.attention.causal": False}, "attention.causal = False"),
    ],
)
def test_a_setting_that_the_configuration_lacks_is_refused(
    architecture: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Transformers would ignore it; the message has its name and value."""
    path = save_gguf(tmp_path / "small.gguf", small(architecture), architecture, settings=settings)
    with pytest.raises(ExportError) as caught:
        load(ModelSource(str(path)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rotary_scaling_is_transferred(kind: str, tmp_path: Path) -> None:
    """The states are those of the scaled model; transformers drops the scaling of a GGUF file."""
    rope: dict[str, Any] = {"rope_theta": 10000.0, "rope_type": kind, "factor": 4.0}
    settings = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = 16
        settings["llama.rope.scaling.original_context_length"] = 16
    model = small("llama", rope_parameters=rope)
    path = save_gguf(tmp_path / "small.gguf", model, "llama", settings=settings)
    causal = load(ModelSource(str(path))).causal
    assert causal is not None
    torch.testing.assert_close(states(causal)[-1], states(model)[-1], atol=1e-5, rtol=1e-5)


def _llama3_factors(theta: float, width: int, factor: float) -> np.ndarray:
    """The divisors of the frequencies, by the formula of Llama 3.1's release."""
    divisors = []
    for power in range(0, width, 2):
        wavelength = 2 * math.pi * theta ** (power / width)
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192:
            divisors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_scaled_frequencies_of_llama_3_are_transferred(tmp_path: Path) -> None:
    """The file has them as a tensor; values of no Llama 3 release are refused."""
    theta, width = 500000.0, 32
    rope = {
        "rope_type": "llama3", "rope_theta": theta, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    model = small("llama", rope_parameters=rope, head_dim=width)
    factors = _llama3_factors(theta, width, 32.0)
    tensors = {"rope_freqs.weight": factors}
    path = save_gguf(tmp_path / "small.gguf", model, "llama", tensors=tensors)
    causal = load(ModelSource(str(path))).causal
    assert causal is not None
    torch.testing.assert_close(states(causal)[-1], states(model)[-1], atol=1e-5, rtol=1e-5)
    tensors = {"rope_freqs.weight": factors + np.linspace(0, 1, len(factors), dtype=np.float32)}
    strange = save_gguf(tmp_path / "strange.gguf", model, "llama", tensors=tensors)
    with pytest.raises(ExportError, match=r"rope_freqs\.weight with factors 1 to 33"):
        load(ModelSource(str(strange)))


def test_a_tensor_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    """Transformers would drop a bias that its Llama lacks; the message names it."""
    tensors = {"blk.0.attn_q.bias": np.ones(32, np.float32)}
    path = save_gguf(tmp_path / "small.gguf", small("llama"), "llama", tensors=tensors)
    with pytest.raises(ExportError, match=r"1 tensors .* lacks, first blk\.0\.attn_q\.bias"):
        load(ModelSource(str(path)))


def test_an_architecture_that_transformers_does_not_read_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    values = {"mpt.block_count": 1, "tokenizer.ggml.model": "gpt2"}
    write(tmp_path / "odd.gguf", "mpt", values, {"token_embd.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(ExportError, match=r"odd cannot be loaded .*architecture mpt"):
        load(ModelSource(str(tmp_path / "odd.gguf")))


def test_the_token_that_ends_a_turn_ends_an_answer(tmp_path: Path) -> None:
    """In addition to the end of the text, because chat models end their answers with it."""
    settings = {"tokenizer.ggml.eot_token_id": 287}
    path = save_gguf(tmp_path / "small.gguf", small("llama"), "llama", settings=settings)
    assert load(ModelSource(str(path))).model.config.eos_token_id == [285, 287]


def test_smollm2() -> None:
    """A published file: 30 blocks, tied embeddings, three tensor types, no random parameters."""
    loaded = load(ModelSource(str(smollm2())))
    assert (len(loaded.model.layers), loaded.model.config.hidden_size) == (30, 576)
    assert loaded.quantisation == "Q4_1, Q8_0, F32"
    assert loaded.causal is not None
    assert loaded.causal.lm_head.weight is loaded.model.embed_tokens.weight
    assert not loaded.missing
