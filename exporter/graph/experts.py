"""Mixtures of experts in a form that can be traced: each expert reads the tokens routed to it.

transformers' own forms do not suit a graph. ``eager`` loops over the experts that were hit, a
number that depends on the values; ``grouped_mm`` has no ONNX operator; ``batched_mm`` copies the
weights of k experts for each token (201 MB a token and layer for OLMoE-1B-7B in float32).
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
    """Let the models in ``module`` run their experts by ``by_expert`` within the ``with`` block."""
    return _experts_by(module, _NAME)


def plain_experts(module: nn.Module) -> AbstractContextManager[None]:
    """Let them run their experts one after the other, in any precision, by their own code."""
    return _experts_by(module, "eager")


@contextmanager
def _experts_by(module: nn.Module, implementation: str) -> Iterator[None]:
    """A model whose experts cannot be switched is left as it is."""
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


def by_expert(
    experts: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of what each token's k experts make of it: [tokens, hidden].

    Args:
        experts: the module that holds the experts' weights, one tensor for all of them.
        hidden_states: [tokens, hidden].
        top_k_index: int64 [tokens, k], the experts of each token.
        top_k_weights: [tokens, k].
    """
    total = torch.zeros_like(hidden_states)
    names = ("gate_up_proj", "down_proj") if experts.has_gate else ("up_proj", "down_proj")
    for number in range(experts.num_experts):
        rows, places = torch.where(top_k_index == number)
        inner = _linear(experts, names[0], number, hidden_states[rows])
        inner = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)  # noqa: SLF001
        made = _linear(experts, names[1], number, inner)
        if experts.has_post_expert_norm:
            made = experts.post_expert_norm(made)
        weighted = made * top_k_weights[rows, places, None]
        total = total.index_add(0, rows, weighted.to(total.dtype))
    return total


def _linear(experts: Any, name: str, number: int, states: Tensor) -> Tensor:
    """One expert's layer; weights lie [experts, out, in], or [experts, in, out] transposed."""
    weight: Tensor = getattr(experts, name)[number]
    made = states @ (weight if experts.is_transposed else weight.T)
    if experts.has_bias:
        made = made + getattr(experts, f"{name}_bias")[number]
    return made


def _can_switch(model: PreTrainedModel) -> bool:
    return EXPERTS is not None and model._can_set_experts_implementation()  # noqa: SLF001


if EXPERTS is not None:
    EXPERTS.register(_NAME, by_expert)
