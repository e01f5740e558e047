"""What tuning adds: the exported outputs against the difference of two models' weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerguard.exporter.graph.added import LEAST
from layerguard.exporter.loading.changes import RANKS
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.pipeline import Exported, Options, export
from layerguard.exporter.proof.tolerance import Dtype
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array
from tests.exporter.loading.test_adapter import save_adapter
from tests.exporter.models import build_causal, save_tokenizer

LLAMA = {
    "model.layers.0.mlp.down_proj": (32, 48),
    "model.layers.1.self_attn.q_proj": (32, 32),
    "model.layers.2.mlp.down_proj": (32, 48),
    "model.layers.2.self_attn.o_proj": (32, 32),
}
GPT2 = {"transformer.h.1.mlp.c_proj": (32, 128), "transformer.h.1.attn.c_proj": (32, 32)}
IDS = np.array([[5, 9, 40, 7, 30], [8, 3, 0, 0, 0], [0, 0, 11, 12, 13]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])


def saved(name: str, folder: Path) -> Path:
    """A small model with its tokenizer."""
    build_causal(name).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def outputs(bundle: Path, exported: Exported) -> dict[str, Array]:
    """The largest values of each row above, [batch] by name of the output."""
    session = onnxruntime.InferenceSession(bundle / "score.onnx")
    names = [card.name for card in cards(exported)]
    feeds = {"input_ids": IDS, "attention_mask": MASK}
    return {
        name: np.where(MASK, values, -np.inf).max(axis=1)
        for name, values in zip(names, session.run(names, feeds), strict=True)
    }


def cards(exported: Exported) -> list[OutputCard]:
    """Their cards."""
    graph = exported.manifest.graphs["score"]
    return [card for card in graph.outputs if card.kind.startswith("delta")]


def expected(base: Path, tuned: ModelSource, modules: list[str]) -> dict[str, Array]:
    """By module, max over each row's tokens of ln |(W_tuned - W_base) x|, from the weights."""
    before, after = load(ModelSource(str(base))).causal, load(tuned).causal
    assert before is not None
    assert after is not None
    found: dict[str, list[float]] = {name: [] for name in modules}

    def reading(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            change = weight(module) - weight(before.get_submodule(name))
            lengths = (inputs[0][0].double() @ change.T).norm(dim=-1)
            found[name].append(float(torch.log(lengths.max().clamp(min=LEAST))))

        return hook

    for name in modules:
        after.get_submodule(name).register_forward_pre_hook(reading(name))
    with torch.inference_mode():
        for ids, mask in zip(IDS, MASK.astype(bool), strict=True):
            after(torch.from_numpy(ids[mask][None]))
    return {name: np.array(values) for name, values in found.items()}


def weight(module: nn.Module) -> Tensor:
    """[width, inputs], float64."""
    assert isinstance(module.weight, Tensor)
    stored = module.weight.detach().double()
    return stored.T if isinstance(module, Conv1D) else stored


@pytest.mark.parametrize(("name", "shapes", "places"), [
    ("llama", LLAMA, ["delta_down_proj_01", "", "delta_down_proj_03", "delta_o_proj_03"]),
    ("gpt2", GPT2, ["delta_down_proj_02", "delta_o_proj_02"]),
])  # fmt: skip
def test_the_outputs_are_what_the_adapter_adds(
    tmp_path: Path, name: str, shapes: dict[str, tuple[int, int]], places: list[str]
) -> None:
    """For padded rows too; matrices that do not write into the residual stream have no output."""
    base = saved(name, tmp_path / "base")
    adapter = save_adapter(tmp_path / "tuned", shapes)
    exported = export(
        str(base), tmp_path / "guard", Options(adapter=adapter, decode="yes", template="{prompt}")
    )
    named = {output: module for module, output in zip(shapes, places, strict=True) if output}
    assert [card.name for card in cards(exported)] == sorted(named, key=lambda n: (n[-2:], n))
    wanted = expected(base, ModelSource(str(base), adapter=adapter), list(named.values()))
    for output, values in outputs(tmp_path / "guard", exported).items():
        np.testing.assert_allclose(values, wanted[named[output]], atol=2e-5)


@pytest.mark.parametrize(("dtype", "apart"), [("float16", 0.02), ("int8", 0.2)])
def test_lower_precision_is_close(tmp_path: Path, dtype: Dtype, apart: float) -> None:
    """A float16 and an int8 graph; the factors of float16 stay in float32."""
    base = saved("llama", tmp_path / "base")
    adapter = save_adapter(tmp_path / "tuned", LLAMA)
    options = Options(adapter=adapter, decode="no", template="{prompt}", dtype=dtype)
    exported = export(str(base), tmp_path / "guard", options)
    named = {f"delta_{module.split('.')[-1]}_{int(module.split('.')[2]) + 1:02}": module
             for module in LLAMA if "q_proj" not in module}  # fmt: skip
    wanted = expected(base, ModelSource(str(base), adapter=adapter), list(named.values()))
    for output, values in outputs(tmp_path / "guard", exported).items():
        np.testing.assert_allclose(values, wanted[named[output]], atol=apart, err_msg=output)


def test_a_base_gives_the_same_as_the_adapter(tmp_path: Path) -> None:
    """A tuned model without its adapter; an unchanged matrix has no output."""
    base = saved("llama", tmp_path / "base")
    adapter = save_adapter(tmp_path / "lora", LLAMA)
    merged = load(ModelSource(str(base), adapter=adapter)).causal
    assert merged is not None
    merged.save_pretrained(tmp_path / "tuned")
    save_tokenizer(tmp_path / "tuned")
    options = {"decode": "no", "template": "{prompt}"}
    by_adapter = export(str(base), tmp_path / "a", Options(adapter=adapter, **options))
    by_base = export(str(tmp_path / "tuned"), tmp_path / "b", Options(base=str(base), **options))
    first, second = outputs(tmp_path / "a", by_adapter), outputs(tmp_path / "b", by_base)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, atol=1e-3, err_msg=name)


def test_a_change_of_full_rank_keeps_its_leading_directions(tmp_path: Path) -> None:
    """20 of 32: the output is at most the whole length, and most of it."""
    base = saved("llama", tmp_path / "base")
    tuned = load(ModelSource(str(base))).causal
    assert tuned is not None
    name = "model.layers.1.mlp.down_proj"
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        left, _, right = torch.linalg.svd(
            torch.randn(32, 48, generator=generator), full_matrices=False
        )
        values = torch.logspace(0, -2, 32)
        tuned.get_submodule(name).weight += left @ torch.diag(values) @ right
    tuned.save_pretrained(tmp_path / "tuned")
    save_tokenizer(tmp_path / "tuned")
    source = ModelSource(str(tmp_path / "tuned"), base=str(base))
    (change,) = load(source).changes
    assert change.place == (1, 0)
    assert change.factor.shape == (RANKS, 48)
    kept = torch.linalg.svdvals(change.factor.double())
    np.testing.assert_allclose(kept, values[:RANKS].double(), rtol=1e-4)


def test_the_base_must_have_the_same_matrices(tmp_path: Path) -> None:
    """A base of another shape is refused; so are an adapter and a base together."""
    tuned = saved("llama", tmp_path / "tuned")
    build_causal("llama", intermediate_size=64).save_pretrained(tmp_path / "other")
    with pytest.raises(ExportError, match=r"no .*down_proj of shape \[32, 48\].*--base"):
        export(str(tuned), tmp_path / "guard", Options(base=str(tmp_path / "other")))
    with pytest.raises(ExportError, match="found --adapter and --base; expected one"):
        export(str(tuned), tmp_path / "guard", Options(base=str(tuned), adapter=tmp_path))


def test_a_note_says_that_nothing_was_changed(tmp_path: Path) -> None:
    """An adapter of the queries alone, and a base that equals the model."""
    base = saved("llama", tmp_path / "base")
    adapter = save_adapter(tmp_path / "lora", {"model.layers.1.self_attn.q_proj": (32, 32)})
    for number, options in enumerate(({"adapter": adapter}, {"base": str(base)})):
        exported = export(
            str(base), tmp_path / f"{number}", Options(decode="no", template="{prompt}", **options)
        )
        assert not cards(exported)
        assert exported.notes == (
            "tuning changed no down_proj or o_proj: no output gives what it adds",
        )
