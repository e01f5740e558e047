"""Transfer all settings of a GGUF file to transformers' configuration, or refuse the file.

transformers reads the settings in its own table and ignores others, some of which change every
state: rotary scaling, the width of a head, the epsilon of LayerNorm, a sliding window. Here every
setting of the file's architecture is either transferred, known to have no effect, or refused by
name. llama.cpp defines the settings (docs/gguf.md of ggml-org/ggml, else llama-model.cpp).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from layerguard.runtime.checkpoints.gguf import GgufFile
from layerguard.runtime.errors import ExportError

ROPE_FREQUENCIES = "rope_freqs.weight"
"""A setting stored as a tensor: the divisor of each rotary frequency (Llama 3.1)."""

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size", "ffn_hidden_size", "n_inner"),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_epsilon": (
        "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps",
    ),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}  # fmt: skip
"""Setting of the file: attributes of the configuration, of which the first existing one is set."""

_WITHOUT_EFFECT: Mapping[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.head_count_kv": (0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (1.0,),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scaling.type": ("none",),
}
"""Values that switch a feature off."""

_NOT_OF_STATES = frozenset({
    "pooling_type", "rope.scaling.finetuned", "tensor_data_layout", "use_parallel_residual",
})  # fmt: skip
"""Settings that do not change states, or that transformers infers from the tensors."""

_ROPE_SCALING = "rope.scaling."
_BLOCKS_OF_27B = {"gemma2": 46, "gemma3": 62}
"""Number of blocks of the Gemma sizes whose queries have another scale."""


def correct(config: PretrainedConfig, file: GgufFile) -> None:
    """Transfer every setting of the file to the configuration that transformers read from it.

    Raises:
        ExportError: the configuration lacks settings; the message lists all of them.
    """
    prefix = f"{file.architecture}."
    settings = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    faults = _set_attributes(config, settings)
    faults += _set_rotary(config, file, settings)
    faults += _check_window_pattern(config, settings)
    if faults:
        listed = "; ".join(faults)
        raise ExportError(
            f"{file.path.name} has settings that transformers' {type(config).__name__} does not "
            f"support: {listed}; expected settings that it can represent. Export the model in "
            "safetensors instead"
        )
    if config.model_type == "mistral" and "attention.sliding_window" not in settings:
        config.sliding_window = None  # transformers' default is that of one early release
    if file.architecture in _BLOCKS_OF_27B:
        of_27b = settings.get("block_count") == _BLOCKS_OF_27B[file.architecture]
        width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width if of_27b else config.head_dim
    _set_tokens(config, file)


def _set_attributes(config: PretrainedConfig, settings: Mapping[str, Any]) -> list[str]:
    faults = []
    for key, setting in settings.items():
        if key in _NOT_OF_STATES or key.startswith("rope.") or key.endswith("window_pattern"):
            continue
        value = setting[0] if isinstance(setting, list) and len(set(setting)) == 1 else setting
        if value in _WITHOUT_EFFECT.get(key, ()):
            continue
        names = [name for name in _ATTRIBUTES.get(key, ()) if hasattr(config, name)]
        if not names and _is_implied(config, key, value):
            continue
        if not names or isinstance(value, list) or _is_unused_window(config, key):
            faults.append(f"{key} = {str(value)[:60]}")
        elif getattr(config, names[0]) != value:
            setattr(config, names[0], value)
    return faults


def _is_unused_window(config: PretrainedConfig, key: str) -> bool:
    """Whether the setting is a sliding window that no layer of the configuration uses."""
    kinds = getattr(config, "layer_types", None)
    if key != "attention.sliding_window" or not kinds:
        return False
    return "sliding_attention" not in kinds


def _is_implied(config: PretrainedConfig, key: str, value: object) -> bool:
    """Whether other settings of the configuration imply this value."""
    heads, width = config.num_attention_heads, config.hidden_size
    implied = {
        "attention.key_length": width // heads,
        "attention.value_length": width // heads,
        "attention.head_count_kv": heads,
        "feed_forward_length": 4 * width,
    }
    return key in implied and implied[key] == value


def _set_rotary(config: PretrainedConfig, file: GgufFile, settings: Mapping[str, Any]) -> list[str]:
    """Transfer base, scaling and dimensions of the rotary embedding; returns the faults."""
    rotary = {key: value for key, value in settings.items() if key.startswith("rope.")}
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return [f"{key} = {value}" for key, value in rotary.items()]
    faults = []
    layers = parameters if "full_attention" in parameters else {"full_attention": parameters}
    full, sliding = layers["full_attention"], layers.get("sliding_attention")
    base = rotary.pop("rope.freq_base", None)
    sliding_base = rotary.pop("rope.freq_base_swa", None)
    if base is not None:
        full["rope_theta"] = base
    if sliding_base is not None and sliding is not None:
        sliding["rope_theta"] = sliding_base
    elif sliding_base not in (None, base):
        faults.append(f"rope.freq_base_swa = {sliding_base}")
    faults += _scaling(full, rotary)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotated = int(head * full.get("partial_rotary_factor", 1.0))
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        dimensions = rotary.pop(key, rotated)
        if dimensions != rotated:
            faults.append(f"{key} = {dimensions} (it rotates {rotated} of {head})")
    faults += [
        f"{key} = {str(value)[:60]}"
        for key, value in rotary.items()
        if key not in _NOT_OF_STATES and value not in _WITHOUT_EFFECT.get(key, ())
    ]
    return faults + _set_llama3_scaling(config, full, file)


def _scaling(parameters: dict[str, Any], rotary: dict[str, Any]) -> list[str]:
    """Transfer linear and YaRN scaling; transferred settings are removed from ``rotary``."""
    kind = rotary.get("rope.scaling.type", "none")
    factor = rotary.pop("rope.scale_linear", rotary.get("rope.scaling.factor"))
    if kind == "none" and factor not in (None, 0.0, 1.0):
        kind = "linear"  # older files have the factor only
    if kind == "none":
        rotary.pop("rope.scaling.original_context_length", None)
        return []
    if kind not in ("linear", "yarn") or factor is None:
        return [f"rope.scaling.type = {kind}"]
    parameters.update(rope_type=kind, factor=float(factor))
    names: dict[str, str | None] = {"type": None, "factor": None}
    if kind == "yarn":
        names |= {
            "original_context_length": "original_max_position_embeddings",
            "yarn_beta_fast": "beta_fast",
            "yarn_beta_slow": "beta_slow",
        }
    for key, name in names.items():
        value = rotary.pop(f"{_ROPE_SCALING}{key}", None)
        if name is not None and value is not None:
            parameters[name] = value
    return []


def _set_llama3_scaling(
    config: PretrainedConfig, parameters: dict[str, Any], file: GgufFile
) -> list[str]:
    """Transfer Llama 3.1's scaling, which the file stores as a tensor of factors.

    The factor is the largest of the tensor; the other parameters are the same in every release of
    Llama 3. They are accepted only if they reproduce the tensor.
    """
    tensor = next((t for t in file.tensors if t.name == ROPE_FREQUENCIES), None)
    if tensor is None:
        return []
    factors = tensor.read().reshape(-1)
    if np.all(factors == 1):
        return []
    plain = dict(parameters)
    parameters.update(
        rope_type="llama3", factor=float(factors.max()), low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    rotated = 2 * len(scaled)
    powers = np.arange(0, rotated, 2, dtype=np.float64) / rotated
    expected = plain["rope_theta"] ** -powers / scaled.double().numpy()
    if expected.shape == factors.shape and np.allclose(factors, expected, rtol=1e-4):
        return []
    return [f"{ROPE_FREQUENCIES} with factors {factors.min():g} to {factors.max():g}"]


def _check_window_pattern(config: PretrainedConfig, settings: Mapping[str, Any]) -> list[str]:
    """Compare the layers with a sliding window with those of the configuration; returns faults."""
    key = "attention.sliding_window_pattern"
    pattern = settings.get(key)
    if pattern is None:
        return []
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    sliding = [kind == "sliding_attention" for kind in kinds]
    if isinstance(pattern, int):
        pattern = [(layer + 1) % pattern != 0 for layer in range(len(sliding))]
    same = [bool(item) for item in pattern] == sliding
    return [] if same else [f"{key} = {str(settings[key])[:60]}"]


def _set_tokens(config: PretrainedConfig, file: GgufFile) -> None:
    """Replace transformers' default special tokens with those of the file.

    The token that ends a chat turn also ends an answer.
    """
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    for name, key in names.items():
        setattr(config, f"{name}_token_id", file.metadata.get(f"tokenizer.ggml.{key}_token_id"))
    turn = file.metadata.get("tokenizer.ggml.eot_token_id")
    ends = sorted({token for token in (config.eos_token_id, turn) if isinstance(token, int)})
    if len(ends) > 1:
        config.eos_token_id = ends
