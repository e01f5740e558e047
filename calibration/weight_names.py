"""Which matrices write into the residual stream, by the names that transformers gives them.

Two of them stand in a block: the output of its attention and the output of its feed-forward part.
Everything that tuning adds to the states passes through one of the two.
"""

import re
from collections.abc import Iterable

_NAMES = {
    # after the block's number                  part   found in
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
    "self_attn.o_proj": 1,                    # Llama and its kin
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
"""Model types that store a matrix as [in, out] (transformers' Conv1D), not [out, in]."""

Place = tuple[int, int]
"""A block's number, from 0, and an index in ``PARTS`` of the detector."""


def place_of(module: str) -> Place | None:
    """Where a module writes into the residual stream, or None for one that does not."""
    found = _MODULE.search(module)
    if found is None or found[2] not in _NAMES:
        return None
    return int(found[1]), _NAMES[found[2]]


def has_experts(modules: Iterable[str]) -> bool:
    """Whether a feed-forward part is a mixture of experts, which has many output matrices."""
    return any(_EXPERTS.search(module) for module in modules)
