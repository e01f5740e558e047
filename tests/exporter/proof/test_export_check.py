"""The export check in float32 detects mistakes despite large channels and rounding.

The models have random weights and a few channels of the states in the thousands, as trained models
do; ``test_architectures`` exports every architecture with them. Graphs run in PyTorch, without a
trace.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from layerguard.exporter.graph import score
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.proof.reference import References
from layerguard.runtime.errors import ExportError
from tests.exporter.in_pytorch import InPyTorch
from tests.exporter.models import LAYERS, build, plant_outliers

Mistake = Callable[[Any, pytest.MonkeyPatch], None]


def off_by_a_percent(layer: int, name: str) -> Mistake:
    """A weight of one block times 1.01."""

    def plant(model: Any, _: pytest.MonkeyPatch) -> None:
        model.layers[layer].get_submodule(name).weight.data.mul_(1.01)

    return plant


def another_rope_base(model: Any, _: pytest.MonkeyPatch) -> None:
    """Frequencies of base 11,000 where the model has 10,000."""
    frequencies = model.rotary_emb.inv_freq
    steps = torch.arange(len(frequencies)) / len(frequencies)
    frequencies.copy_(11_000.0**-steps)


def without_a_bias(model: Any, _: pytest.MonkeyPatch) -> None:
    """One bias of the values is zero."""
    model.layers[1].self_attn.v_proj.bias.data.zero_()


def padding_on_the_right(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token is computed as if no row had padding on the left."""

    class Pooling(score.Pooling):
        def __init__(self, attention_mask: torch.Tensor) -> None:
            super().__init__(attention_mask)
            self._last = attention_mask.sum(1) - 1

    monkeypatch.setattr(score, "Pooling", Pooling)


def positions_from_the_left(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions count the padding on the left."""
    arguments = Architecture.arguments

    def counted(self: Architecture, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        changed = arguments(self, ids, mask)
        changed["position_ids"] = torch.arange(ids.shape[1]).expand_as(ids)
        return changed

    monkeypatch.setattr(Architecture, "arguments", counted)


MISTAKES: dict[str, tuple[str, Mistake]] = {
    **{
        f"{name} of block {layer + 1} off by 1 %": ("qwen2", off_by_a_percent(layer, name))
        for layer, name in (
            (0, "self_attn.q_proj"), (0, "mlp.down_proj"), (1, "self_attn.v_proj"),
            (LAYERS - 1, "self_attn.o_proj"), (LAYERS - 1, "mlp.gate_proj"),
        )
    },
    "another rope base": ("llama", another_rope_base),
    "a lost bias": ("qwen2", without_a_bias),
    "the last token of a right-padded row": ("llama", padding_on_the_right),
    "positions that count padding": ("gpt2", positions_from_the_left),
}  # fmt: skip


def spec_of(model: Any) -> GraphSpec:
    """The score graph with every token's states, after its reference run."""
    architecture = examine(model)
    references = References(architecture)
    spec = score_graph(architecture, "pooled", LAYERS, 0, references)
    references.run()
    return spec


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_detected(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A correct graph passes with channels in the thousands; with the mistake it fails."""
    name, plant = MISTAKES[mistake]
    model = plant_outliers(build(name))
    spec = spec_of(model)
    spec.prove(InPyTorch(spec)).check("float32")
    plant(model, monkeypatch)
    with pytest.raises(ExportError, match="float32 graph differs from the model"):
        spec.prove(InPyTorch(spec)).check("float32")
