"""The matrices that write into the residual stream, by their names in transformers.

Each block has two: the output matrix of its attention and that of its feed-forward part.
Everything that tuning adds to the states passes through one of these two.
"""

import re
from collections.abc import Iterable

_NAMES = {
    # name after the block's number             part   architectures
    "mlp.down_proj": 0,                       # Llama, Mistral, Qwen, Gemma, Phi-3, OLMo, Granite
    "mlp.c_proj": 0,                          # GPT-2, GPT-Neo, StarCoder
    "mlp.dense_4h_to_h": 0,                   # GPT-NeoX, BLOOM, Falcon
    "mlp.fc2": 0,                             # Phi
    "mlp.fc_out": 0,                          # GPT-J
    "mlp.Wo": 0,                              # ModernBERT
    "fc2": 0,                                 # OPT
    "ffn.down_proj": 0,                       # MPT
    "ffn.lin2": 0,                            # DistilBERT
    "output.dense": 0,                        # BERT, RoBERTa, ELECTRA, DeBERTa
    "self_attn.o_proj": 1,                    # Llama and its derivatives
    "self_attn.dense": 1,                     # Phi
    "self_attn.out_proj": 1,                  # OPT
    "attn.c_proj": 1,                         # GPT-2, StarCoder
    "attn.out_proj": 1,                       # GPT-J, MPT
    "attn.attention.out_proj": 1,             # GPT-Neo
    "attn.Wo": 1,                             # ModernBERT
    "attention.dense": 1,                     # GPT-NeoX
    "attention.out_lin": 1,                   # DistilBERT
    "attention.output.dense": 1,              # BERT, RoBERTa, ELECTRA, DeBERTa
    "self_attention.dense": 1,                # BLOOM, Falcon
}  # fmt: skip
_MODULE = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"(?:^|\.)(?:experts|shared_experts?|block_sparse_moe)\.")

INPUT_FIRST = frozenset({"gpt2", "openai-gpt"})
"""Model types that store a matrix as [in, out] (transformers' Conv1D) instead of [out, in]."""

PARTS = ("down_proj", "o_proj")
"""The two matrices of a block, by Llama's names: of the feed-forward part, and of attention."""

Place = tuple[int, int]
"""The number of a block, from 0, and an index in ``PARTS``."""


def place_of(module: str) -> Place | None:
    """The place where a module writes into the residual stream, or None if it does not."""
    match = _MODULE.search(module)
    if match is None or match[2] not in _NAMES:
        return None
    return int(match[1]), _NAMES[match[2]]


def has_experts(modules: Iterable[str]) -> bool:
    """Whether a feed-forward part is a mixture of experts, which has many output matrices."""
    return any(_EXPERTS.search(module) for module in modules)
