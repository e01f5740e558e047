"""Mixtures of experts in a form that can be traced: each expert processes its own tokens.

transformers' implementations do not suit a graph. ``eager`` loops over the selected experts, whose
number depends on the values; ``grouped_mm`` has no ONNX operator; ``batched_mm`` copies the weights
of k experts for each token (201 MB per token and layer for OLMoE-1B-7B in float32).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

try:
    from transformers.integrations import moe
except ImportError:  # before transformers 5
    EXPERTS: Any = None
else:
    EXPERTS = moe.ALL_EXPERTS_FUNCTIONS

_NAME = "layerguard_by_expert"


def traceable_experts(module: nn.Module) -> AbstractContextManager[None]:
    """Run the experts in ``module`` with ``run_by_expert`` within the ``with`` block."""
    return _experts_by(module, _NAME)


def eager_experts(module: nn.Module) -> AbstractContextManager[None]:
    """Run the experts with transformers' eager code, which works in any precision."""
    return _experts_by(module, "eager")


@contextmanager
def _experts_by(module: nn.Module, implementation: str) -> Iterator[None]:
    """Switch the implementation of all models that allow it; leave others unchanged."""
    models = [
        child
        for child in module.modules()
        if isinstance(child, PreTrainedModel) and _can_switch(child)
    ]
    before = [model.config._experts_implementation for model in models]  # noqa: SLF001
    for model in models:
        model.set_experts_implementation(implementation)
    try:
        yield
    finally:
        for model, name in zip(models, before, strict=True):
            model.set_experts_implementation(name)


def run_by_expert(
    experts: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of the outputs of each token's k experts: [tokens, hidden].

    Args:
        experts: the module with the weights of all experts in one tensor per layer.
        hidden_states: [tokens, hidden].
        top_k_index: int64 [tokens, k], the experts of each token.
        top_k_weights: [tokens, k].
    """
    total = torch.zeros_like(hidden_states)
    names = ("gate_up_proj", "down_proj") if experts.has_gate else ("up_proj", "down_proj")
    for number in range(experts.num_experts):
        rows, ranks = torch.where(top_k_index == number)
        inner = _linear(experts, names[0], number, hidden_states[rows])
        inner = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)  # noqa: SLF001
        output = _linear(experts, names[1], number, inner)
        if experts.has_post_expert_norm:
            output = experts.post_expert_norm(output)
        weighted = output * top_k_weights[rows, ranks, None]
        total = total.index_add(0, rows, weighted.to(total.dtype))
    return total


def _linear(experts: Any, name: str, number: int, states: Tensor) -> Tensor:
    """One layer of one expert; weights [experts, out, in], or [experts, in, out] if transposed."""
    weight: Tensor = getattr(experts, name)[number]
    output = states @ (weight if experts.is_transposed else weight.T)
    if experts.has_bias:
        output = output + getattr(experts, f"{name}_bias")[number]
    return output


def _can_switch(model: PreTrainedModel) -> bool:
    return EXPERTS is not None and model._can_set_experts_implementation()  # noqa: SLF001


if EXPERTS is not None:
    EXPERTS.register(_NAME, run_by_expert)
