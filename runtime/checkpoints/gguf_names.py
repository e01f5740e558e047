"""Converts GGUF tensors to the names and layout of transformers' checkpoints, without PyTorch.

llama.cpp's converter renames every tensor and transforms some: it interleaves the rows of Llama's
queries and keys, adds 1 to Gemma's norms, and transposes GPT-2's layers. This module inverts these
transformations with the same operations as transformers, so the values are identical to the bit. An
architecture that is not in the table is refused.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.runtime.checkpoints.gguf import GgufFile, GgufTensor
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

Undo = Callable[[Array, Mapping[str, Any]], Array]
"""Maps a tensor of the file and the settings of its architecture to the checkpoint's tensor."""

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")

_OF_LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OF_QWEN3 = {**_OF_LLAMA, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_OF_PHI3 = {
    **{name: _OF_LLAMA[name] for name in _OF_LLAMA if name not in ("attn_q", "attn_k", "attn_v")},
    "attn_qkv": "self_attn.qkv_proj",
    "ffn_up": "mlp.gate_up_proj",
}
_OF_GEMMA2 = {
    **_OF_LLAMA,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OF_GEMMA3 = {**_OF_GEMMA2, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_OF_GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


def _in_halves(values: Array, heads: int) -> Array:
    """Reorder interleaved rotary pairs into the two halves of each head."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(values.shape)


def _queries(values: Array, settings: Mapping[str, Any]) -> Array:
    return _in_halves(values, settings["attention.head_count"])


def _keys(values: Array, settings: Mapping[str, Any]) -> Array:
    heads = settings["attention.head_count"]
    return _in_halves(values, settings.get("attention.head_count_kv", heads))


def _without_one(values: Array, _: Mapping[str, Any]) -> Array:
    return values - 1


def _transposed(values: Array, _: Mapping[str, Any]) -> Array:
    return values.T if values.ndim == 2 else values


_NORMS = (
    "output_norm", "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "attn_q_norm",
    "attn_k_norm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Architecture:
    """Tensor names of one architecture in a checkpoint, and the inverse transformations."""

    model_type: str
    blocks: str
    names: Mapping[str, str]
    inverses: Mapping[str, Undo]


_ARCHITECTURES: Mapping[str, _Architecture] = {
    "llama": _Architecture(
        "llama", "model.layers", _OF_LLAMA, {"attn_q": _queries, "attn_k": _keys}
    ),
    "qwen2": _Architecture("qwen2", "model.layers", _OF_LLAMA, {}),
    "qwen3": _Architecture("qwen3", "model.layers", _OF_QWEN3, {}),
    "phi3": _Architecture("phi3", "model.layers", _OF_PHI3, {}),
    "gemma2": _Architecture(
        "gemma2", "model.layers", _OF_GEMMA2, dict.fromkeys(_NORMS, _without_one)
    ),
    "gemma3": _Architecture(
        "gemma3_text", "model.layers", _OF_GEMMA3, dict.fromkeys(_NORMS, _without_one)
    ),
    "gpt2": _Architecture(
        "gpt2", "transformer.h", _OF_GPT2,
        dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), _transposed),
    ),
}  # fmt: skip

_NO_WEIGHTS = frozenset(
    {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
)
"""Settings of the rotary embedding that GGUF stores as tensors; checkpoints do not have them."""


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor of a GGUF file, as it appears in a checkpoint of transformers.

    Attributes:
        name: name in the checkpoint.
        shape: shape in the checkpoint.
        stored: the tensor in the GGUF file.
    """

    name: str
    shape: tuple[int, ...]
    stored: GgufTensor
    _undo: Undo | None
    _settings: Mapping[str, Any]

    def read(self) -> Array:
        """The values, float32 of ``shape``."""
        values = self.stored.read()
        return values if self._undo is None else self._undo(values, self._settings)


def model_type(file: GgufFile) -> str:
    """The name of the architecture in transformers.

    Raises:
        InputError: the architecture is not supported.
    """
    return _architecture(file).model_type


def named_tensors(file: GgufFile) -> Iterator[NamedTensor]:
    """All tensors of the file, as they appear in a checkpoint of transformers.

    Raises:
        InputError: the architecture is not supported, or a tensor has an unknown name.
    """
    known = _architecture(file)
    prefix = f"{file.architecture}."
    settings = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    for tensor in file.tensors:
        if tensor.name in _NO_WEIGHTS:
            continue
        match = _BLOCK.fullmatch(tensor.name)
        stem, suffix = (match[2], match[3]) if match else tensor.name.rpartition(".")[::2]
        if stem not in known.names:
            raise InputError(
                f"{file.path.name} has a tensor {tensor.name[:80]!r}; expected those that "
                f"llama.cpp's converter writes for {file.architecture}. Give the model in "
                "safetensors"
            )
        name = f"{known.names[stem]}.{suffix}"
        undo = (
            known.inverses.get(stem) if suffix == "weight" or stem in ("attn_q", "attn_k") else None
        )
        is_transposed = undo is _transposed and len(tensor.shape) == 2
        yield NamedTensor(
            f"{known.blocks}.{match[1]}.{name}" if match else name,
            tensor.shape[::-1] if is_transposed else tensor.shape,
            tensor,
            undo,
            settings,
        )


def _architecture(file: GgufFile) -> _Architecture:
    if file.architecture not in _ARCHITECTURES:
        raise InputError(
            f"{file.path.name} is of architecture {file.architecture}; expected one of "
            f"{', '.join(_ARCHITECTURES)}, whose tensors can be read from GGUF without PyTorch. "
            "Give the model in safetensors"
        )
    return _ARCHITECTURES[file.architecture]
