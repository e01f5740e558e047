"""Programs that are translated without a second trace, and programs that must be decomposed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from layerguard.exporter.graph import translate
from layerguard.exporter.graph.convert import OPSET, convert, trace
from layerguard.exporter.graph.spec import GraphInput, GraphSpec
from layerguard.exporter.proof.score import compare
from layerguard.runtime.bundle.manifest import OutputCard

WIDTH = 6


class Small(nn.Module):
    """One function of states [batch, tokens, width] and a mask [batch, tokens] as a module."""

    def __init__(self, function: Callable[[nn.Linear, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self._function = function

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The function."""
        return self._function(self.linear, states, mask)


def plain(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """Operations of transformers, and each operator that is rewritten."""
    batch, tokens, _ = states.shape
    selected = (mask > 0) & (torch.arange(tokens)[None] <= 3) | (mask > 5)
    heads = linear(states).view(batch, tokens, 2, -1).transpose(1, 2).to(torch.float32)
    merged = heads.transpose(1, 2).reshape(batch, tokens, WIDTH).expand(batch, tokens, WIDTH)
    summed = merged @ linear.weight.T.T + mask.to(torch.float32)[..., None]
    return torch.where(selected[..., None], summed, 0.5).type_as(states)


def mixed(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """An integer tensor times a float one."""
    return linear(states) * mask[..., None]


def integers(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """Integers with a fraction: an addition and a comparison."""
    return linear(states) + ((mask * 2 > 1.5) & (mask + 0.5 > 1)).to(torch.float32)[..., None]


def in_place(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """A tensor that is changed through a view."""
    result = linear(states)
    result[:, 0].mul_(2)
    return result + mask.to(torch.float32)[..., None]


def sizes(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """A float tensor divided by the number of tokens."""
    return linear(states) / mask.shape[1]


def spec_of(function: Callable[[nn.Linear, Tensor, Tensor], Tensor]) -> GraphSpec:
    """A graph of one output without an export check."""
    axes = {0: "batch", 1: "tokens"}
    output = (OutputCard("answer", "state", 0),)
    return GraphSpec(
        mode="states",
        module=Small(function),
        inputs=(
            GraphInput("states", torch.randn(2, 5, WIDTH), axes),
            GraphInput("mask", torch.ones(2, 5, dtype=torch.int64), axes),
        ),
        outputs=output,
        prove=partial(compare, batches=[], outputs=output),
    )


def check(spec: GraphSpec, model: onnx_ir.Model, folder: Path) -> None:
    """Compare graph and module on a shape that differs from that of the trace."""
    onnx_ir.save(model, folder / "small.onnx")
    session = onnxruntime.InferenceSession(str(folder / "small.onnx"))
    states = torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(21).reshape(3, 7) % 3 > 0).long()
    (answer,) = session.run(["answer"], {"states": states.numpy(), "mask": mask.numpy()})
    with torch.inference_mode():
        expected = spec.module(states, mask).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_a_plain_program_is_not_traced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decomposition runs, operators without effect are removed, and the outputs are right."""

    def refuse(*_: object, **__: object) -> ExportedProgram:
        raise AssertionError("decomposed")

    spec = spec_of(plain)
    program = trace(spec)
    monkeypatch.setattr(ExportedProgram, "run_decompositions", refuse)
    model = convert(program, spec)
    kinds = [node.op_type for node in model.graph]
    assert "Expand" not in kinds, "the shape is the same before and after"
    assert kinds.count("Cast") == 1, "only the mask is cast; states are float32"
    check(spec, model, tmp_path)


@pytest.mark.parametrize("function", [mixed, integers, in_place, sizes])
def test_implicit_casts_and_changes_in_place_are_decomposed(
    tmp_path: Path, function: Callable[[nn.Linear, Tensor, Tensor], Tensor]
) -> None:
    """Such programs are not translated directly, and the outputs are right."""
    spec = spec_of(function)
    program = trace(spec)
    assert translate.translate(program, OPSET) is None
    check(spec, convert(program, spec), tmp_path)


def test_without_the_private_functions_the_public_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another torch version may lack them; every program is then decomposed."""

    def missing(_: int) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr(translate, "_registry", missing)
    spec = spec_of(plain)
    program = trace(spec)
    assert translate.translate(program, OPSET) is None
    check(spec, convert(program, spec), tmp_path)
