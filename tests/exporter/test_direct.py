"""Programs that go into ONNX without being traced again, and those that must be decomposed."""

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

from layerguard.exporter.graph import direct
from layerguard.exporter.graph.convert import OPSET, convert, trace
from layerguard.exporter.graph.part import GraphInput, Part
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
    """What transformers are made of, and each operator that is rewritten."""
    batch, tokens, _ = states.shape
    seen = (mask > 0) & (torch.arange(tokens)[None] <= 3) | (mask > 5)
    turned = linear(states).view(batch, tokens, 2, -1).transpose(1, 2).to(torch.float32)
    back = turned.transpose(1, 2).reshape(batch, tokens, WIDTH).expand(batch, tokens, WIDTH)
    summed = back @ linear.weight.T.T + mask.to(torch.float32)[..., None]
    return torch.where(seen[..., None], summed, 0.5).type_as(states)


def mixed(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """An integer tensor times a float one."""
    return linear(states) * mask[..., None]


def integers(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """Integers beside a fraction, and a comparison with one."""
    return linear(states) + ((mask * 2 > 1.5) & (mask + 0.5 > 1)).to(torch.float32)[..., None]


def in_place(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """A tensor that changes under another name."""
    made = linear(states)
    made[:, 0].mul_(2)
    return made + mask.to(torch.float32)[..., None]


def sizes(linear: nn.Linear, states: Tensor, mask: Tensor) -> Tensor:
    """A float tensor divided by how many tokens there are."""
    return linear(states) / mask.shape[1]


def part(function: Callable[[nn.Linear, Tensor, Tensor], Tensor]) -> Part:
    """A part of one output that nobody proves."""
    axes = {0: "batch", 1: "tokens"}
    output = (OutputCard("answer", "state", 0),)
    return Part(
        mode="states",
        module=Small(function),
        inputs=(
            GraphInput("states", torch.randn(2, 5, WIDTH), axes),
            GraphInput("mask", torch.ones(2, 5, dtype=torch.int64), axes),
        ),
        outputs=output,
        prove=partial(compare, cases=[], expected=[], outputs=output),
    )


def check(made: Part, model: onnx_ir.Model, folder: Path) -> None:
    """The graph gives what the module gives, at a shape that the trace never saw."""
    onnx_ir.save(model, folder / "small.onnx")
    session = onnxruntime.InferenceSession(str(folder / "small.onnx"))
    states = torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(21).reshape(3, 7) % 3 > 0).long()
    (found,) = session.run(["answer"], {"states": states.numpy(), "mask": mask.numpy()})
    with torch.inference_mode():
        expected = made.module(states, mask).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_plain_program_is_not_traced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decomposition runs, no operator is left that does nothing, and the numbers are right."""

    def refuse(*_: object, **__: object) -> ExportedProgram:
        raise AssertionError("decomposed")

    made = part(plain)
    program = trace(made)
    monkeypatch.setattr(ExportedProgram, "run_decompositions", refuse)
    model = convert(program, made)
    kinds = [node.op_type for node in model.graph]
    assert "Expand" not in kinds, "a shape that is already so"
    assert kinds.count("Cast") == 1, "of the mask; states are float32 already"
    check(made, model, tmp_path)


@pytest.mark.parametrize("function", [mixed, integers, in_place, sizes])
def test_implicit_casts_and_changes_in_place_are_decomposed(
    tmp_path: Path, function: Callable[[nn.Linear, Tensor, Tensor], Tensor]
) -> None:
    """What translation alone would get wrong takes the longer road, and is right."""
    made = part(function)
    program = trace(made)
    assert direct.translate(program, OPSET) is None
    check(made, convert(program, made), tmp_path)


def test_a_torch_that_moved_its_functions_is_served_by_the_public_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the private translation every program is decomposed, and none is lost."""

    def gone(_: int) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr(direct, "_registry", gone)
    made = part(plain)
    program = trace(made)
    assert direct.translate(program, OPSET) is None
    check(made, convert(program, made), tmp_path)
