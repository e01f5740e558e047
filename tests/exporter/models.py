"""Small models with random weights, one for each tested architecture."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from layerguard.exporter.loading.architecture import examine

LAYERS, WIDTH, VOCABULARY = 3, 32, 101
_ANY = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_DECODER = {**_ANY, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA = {**_DECODER, "head_dim": 8, "sliding_window": 8}
_SPECIAL = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2)
# model type in transformers, configuration, attribute of the final norm
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "bert": ("bert", {**_ANY, "type_vocab_size": 2}, None),
    "minilm": ("bert", {**_ANY, "num_attention_heads": 8, "intermediate_size": 128}, None),
    "roberta": (
        "roberta", {**_ANY, "type_vocab_size": 1, "pad_token_id": 1,
                    "max_position_embeddings": 66}, None,
    ),
    "deberta-v2": (
        "deberta-v2", {**_ANY, "type_vocab_size": 0, "relative_attention": True,
                       "position_buckets": 16, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3,
                       "conv_act": "gelu", "share_att_key": True, "pos_att_type": ["p2c", "c2p"],
                       "position_biased_input": False}, None,
    ),
    "modernbert": (
        "modernbert", {**_ANY, **_SPECIAL, "local_attention": 8, "global_attn_every_n_layers": 2},
        "final_norm",
    ),
    "llama": ("llama", _DECODER, "norm"),
    "mistral": ("mistral", {**_DECODER, "sliding_window": 8}, "norm"),
    "qwen2": ("qwen2", _DECODER, "norm"),
    "qwen3": ("qwen3", {**_DECODER, "head_dim": 8}, "norm"),
    "gemma2": ("gemma2", _GEMMA, "norm"),
    "gemma3": (
        "gemma3_text",
        {**_GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "norm",
    ),
    "gpt2": (
        "gpt2", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64,
                 "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}, "ln_f",
    ),
    "gpt-neox": ("gpt_neox", {**_ANY, "rotary_pct": 0.5}, "final_layer_norm"),
    "phi": ("phi", {**_DECODER, "partial_rotary_factor": 0.5}, "final_layernorm"),
    "phi3": ("phi3", _DECODER, "norm"),
}  # fmt: skip
ENCODERS = ("bert", "minilm", "roberta", "deberta-v2", "modernbert")
DECODERS = tuple(name for name in ARCHITECTURES if name not in ENCODERS)


def build(name: str, **changes: Any) -> PreTrainedModel:
    """The backbone; noise on every parameter makes norms and biases matter."""
    return _with_noise(AutoModel, name, changes)


def build_causal(name: str, **changes: Any) -> PreTrainedModel:
    """A decoder with its head, with the same noise and the attention that the exporter sets."""
    model = _with_noise(AutoModelForCausalLM, name, changes)
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")
    return model


OUTLIERS = {3: 1_000, 17: -400}
"""Factors of a feed-forward part's output by channel."""


def plant_outliers(model: PreTrainedModel) -> PreTrainedModel:
    """Make a few channels of the states as large as in trained language models."""
    with torch.no_grad():
        for block in examine(model).blocks:
            *_, last = (m for m in block.modules() if isinstance(m, nn.Linear | Conv1D))
            rows = last.weight if isinstance(last, nn.Linear) else last.weight.T
            for channel, factor in OUTLIERS.items():
                rows[channel] *= factor
    return model


def _with_noise(kind: Any, name: str, changes: dict[str, Any]) -> PreTrainedModel:
    model_type, config, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    configuration = AutoConfig.for_model(model_type, **{**config, **changes})
    model: PreTrainedModel = kind.from_config(configuration).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def save_tokenizer(
    folder: Path, *, words: int = VOCABULARY, chat_template: str | None = None
) -> None:
    """Save a word tokenizer with this number of ids in transformers' format."""
    special = ["[PAD]", "<s>", "</s>", "[UNK]"]
    vocabulary = special + [f"w{i}" for i in range(words - len(special))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="<s>", eos_token="</s>",
        unk_token="[UNK]", chat_template=chat_template,
    )  # fmt: skip
    fast.save_pretrained(folder)


def save_model(
    folder: Path,
    name: str = "llama",
    *,
    head: bool = False,
    chat_template: str | None = None,
    **changes: Any,
) -> Path:
    """Save a model folder for ``layerguard export``."""
    (build_causal if head else build)(name, **changes).save_pretrained(folder)
    save_tokenizer(folder, chat_template=chat_template)
    return folder
