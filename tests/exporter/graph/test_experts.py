"""Mixtures of experts: each token is routed to its own experts, in PyTorch and in the graph."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from layerguard.exporter.graph import experts
from layerguard.exporter.graph.experts import traceable_experts
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.reference import References
from tests.exporter.models import LAYERS, VOCABULARY, WIDTH, build

if experts.EXPERTS is None:
    pytest.skip("transformers before 5 cannot switch experts", allow_module_level=True)

_ANY = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": VOCABULARY,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_experts_per_tok": 2,
}  # fmt: skip
_LATENT = {
    "num_key_value_heads": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "n_shared_experts": 1, "moe_intermediate_size": 16, "n_routed_experts": 8,
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16},
    "mixtral": {"num_local_experts": 4},
    "olmoe": {"num_experts": 4},
    "deepseek_v3": _LATENT,
    "gpt_oss": {
        "num_local_experts": 4, "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    },
}  # fmt: skip
"""They include shared experts, biases, other gate functions and transposed weights."""


def mixture(name: str, **changes: Any) -> PreTrainedModel:
    """A small model with random weights and uneven routers."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**_ANY, **MIXTURES[name], **changes})
    model: PreTrainedModel = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_one_by_one_equal_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs are the same with several experts; afterwards the model is unchanged."""
    model = mixture(name)
    before = model.config._experts_implementation
    ids = torch.arange(3, 63).reshape(3, 20)
    chosen: list[torch.Tensor] = []
    original = experts.run_by_expert

    def observed(module: Any, states: Any, index: torch.Tensor, weights: Any) -> torch.Tensor:
        chosen.append(index)
        return original(module, states, index, weights)

    monkeypatch.setitem(experts.EXPERTS, experts._NAME, observed)
    with torch.inference_mode():
        expected = model(input_ids=ids).last_hidden_state
        assert not chosen
        with traceable_experts(model):
            by_expert = model(input_ids=ids).last_hidden_state
    assert all(len(index.unique()) > 2 for index in chosen)
    assert chosen
    torch.testing.assert_close(by_expert, expected, atol=1e-5, rtol=1e-5)
    assert model.config._experts_implementation == before


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_a_mixture_is_exported_with_its_routing(name: str, tmp_path: Path) -> None:
    """The graph chooses the experts and passes the export check."""
    model = mixture(name, num_hidden_layers=1)
    architecture = examine(model)
    references = References(architecture)
    spec = score_graph(architecture, "pooled", 1, 0, references)
    write_graph(spec, tmp_path, "score.onnx", SharedWeights(tmp_path))
    proof = spec.prove(onnxruntime.InferenceSession(str(tmp_path / "score.onnx")))
    assert max(proof.largest.values()) <= 1e-4
    graph = onnx.load(str(tmp_path / "score.onnx"), load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("TopK") == 1
    assert kinds.count("NonZero") == 4  # one for each expert


def test_other_models_are_unchanged() -> None:
    """A model without experts is neither switched nor refused."""
    model = build("llama")
    assert len(model.layers) == LAYERS
    with traceable_experts(model):
        assert model.config._experts_implementation != experts._NAME
