"""The gate of float32: an export mistake does not hide behind large channels or rounding.

Random weights are given what trained language models have, a few channels of the states in the
thousands; ``test_architectures`` exports every family with them. Graphs are run in PyTorch here, as
they are before they are traced.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from layerguard.exporter.graph import wrapper
from layerguard.exporter.graph.part import Part
from layerguard.exporter.graph.score import score_part
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.proof.comparison import Comparison, Differences
from layerguard.exporter.proof.reference import References, float64
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array
from tests.exporter.in_pytorch import InPyTorch
from tests.exporter.models import LAYERS, WIDTH, build, plant_outliers

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
    """The last token is counted from the left, as if no row were padded there."""

    class Pooling(wrapper.Pooling):
        def __init__(self, attention_mask: torch.Tensor) -> None:
            super().__init__(attention_mask)
            self._last = attention_mask.sum(1) - 1

    monkeypatch.setattr(wrapper, "Pooling", Pooling)


def positions_from_the_left(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions count the padding in front of a row."""
    arguments = Architecture.arguments

    def counted(self: Architecture, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        given = arguments(self, ids, mask)
        given["position_ids"] = torch.arange(ids.shape[1]).expand_as(ids)
        return given

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


def part_of(model: Any) -> Part:
    """The score graph with every token's states; what PyTorch gives is noted now."""
    architecture = examine(model)
    references = References(architecture)
    part = score_part(architecture, "pooled", LAYERS, 0, references)
    references.run()
    return part


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own graph passes, beside channels in the thousands; with the mistake it fails."""
    name, plant = MISTAKES[mistake]
    model = plant_outliers(build(name))
    part = part_of(model)
    right = part.prove(InPyTorch(part))
    right.decide("float32")
    plant(model, monkeypatch)
    with pytest.raises(ExportError, match="float32 graph is not the model"):
        part.prove(InPyTorch(part)).decide("float32")


def test_the_outliers_are_there() -> None:
    """States reach the thousands in a few channels and stay near one in the others."""
    ids = np.arange(20) + 5
    references = References(examine(plant_outliers(build("llama"))))
    references.want(ids)
    last = np.abs(references.of(ids).exact.states[-1])
    assert last.max() > 1_000
    assert np.median(last) < 10


def test_float64_is_float64_throughout_and_leaves_the_weights() -> None:
    """Norms and softmax, which the model's code does in float32, are done in float64 too."""
    model = build("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.arange(20)[None] + 5
    with torch.inference_mode(), float64(model):
        widened = model(input_ids=ids).last_hidden_state
        again = model(input_ids=ids, output_hidden_states=True)
    assert widened.dtype == torch.float64
    assert all(state.dtype == torch.float64 for state in again.hidden_states)
    # a norm done in float32 would leave its result on float32's grid
    given = torch.linspace(1, 2, WIDTH, dtype=torch.float64)[None]
    with torch.inference_mode(), float64(model):
        normed = model.norm(given)
    assert (normed != normed.float().double()).any()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_an_error_in_the_float64_run_gives_the_weights_back() -> None:
    """The model can be used after a failed run."""
    model = build("llama")
    refused = pytest.raises(ExportError, match=r"LlamaModel cannot be run in float64 \(planted\)")
    with refused, float64(model):
        raise RuntimeError("planted")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def compared(found: Array, exact: Array, rounded: Array) -> Comparison:
    """Of one output, one batch."""
    differences = Differences(["state_00"])
    differences.add("state_00", found, exact, rounded)
    return differences.comparison(1)


def test_a_vector_is_measured_by_its_largest_element() -> None:
    """0.02 beside 4,000 is 5e-6; 0.02 beside 2 is 1e-2. The worst vector counts."""
    exact = np.array([[4_000.0, 1.0], [2.0, 1.0]])
    large = compared(exact + np.array([[0, 0.02], [0, 0]]), exact, exact)
    small = compared(exact + np.array([[0, 0], [0, 0.02]]), exact, exact)
    assert large.largest["state_00"] == pytest.approx(5e-6)
    assert small.largest["state_00"] == pytest.approx(1e-2)
    large.decide("float32")
    with pytest.raises(ExportError, match=r"0\.01; expected at most 1e-05"):
        small.decide("float32")


@pytest.mark.parametrize(
    ("rounding", "allowed"),
    [(0.0, 1e-5), (4e-7, 1e-5), (2e-6, 4e-5), (2e-4, 1e-3), (np.inf, 1e-5), (np.nan, 1e-5)],
)
def test_twenty_times_pytorchs_own_rounding_is_allowed(rounding: float, allowed: float) -> None:
    """From 1e-5 to 1e-3; rounding that is not finite allows no more than 1e-5."""
    at_most = {"state_00": allowed * 0.999}
    own = {"state_00": rounding}
    assert Comparison(at_most, own, own, 1).allowed("float32")["state_00"] == pytest.approx(allowed)
    Comparison(at_most, own, own, 1).decide("float32")
    with pytest.raises(ExportError, match=f"expected at most {allowed:g}"):
        Comparison({"state_00": allowed * 1.001}, own, own, 1).decide("float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(value: float) -> None:
    """In the graph, in PyTorch's float32, or in both."""
    exact = np.array([[1.0, 2.0]])
    broken = np.array([[1.0, value]])
    for found, rounded in ((broken, exact), (broken, broken)):
        with pytest.raises(ExportError, match="not the model"):
            compared(found, exact, rounded).decide("float32")
