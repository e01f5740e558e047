"""Small random backbones that every machine makes alike: weights from numpy's seeded generator."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.peers.siren_shapes import BACKBONES, LAYERS, WIDTH

_SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
_CONFIG = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
    "vocab_size": len(_SPECIAL) + 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_backbone(folder: Path, kind: str) -> Path:
    """A model folder, as ``layerguard export`` and transformers take it."""
    rng = np.random.default_rng(sorted(BACKBONES).index(kind))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **_CONFIG)).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = rng.normal(size=parameter.shape).astype(np.float32)
            norm = parameter.ndim == 1
            scale = 0.2 if norm or "embed" in name else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.from_numpy(values * np.float32(scale) + np.float32(norm)))
    model.save_pretrained(folder)
    _tokenizer(kind).save_pretrained(folder)
    return folder


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One token a byte."""
    frame, chat_template = BACKBONES[kind]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*_SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in _SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(frame, special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        chat_template=chat_template, model_max_length=1024,
    )  # fmt: skip
