"""Weights: every stored form and architecture gives the change by tuning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from layerguard.calibration.weights.files import stored_tensors
from layerguard.calibration.weights.tuning import Change, adapter_alone, between
from layerguard.runtime.checkpoints.places import place_of
from layerguard.runtime.errors import InputError
from tests.calibration.checkpoints import (
    BLOCKS,
    INNER,
    WIDTH,
    factors,
    llama_weights,
    save_adapter,
    save_model,
)
from tests.exporter import models
from tests.reference import spectra


def _whole(change: Change) -> np.ndarray[Any, Any]:
    return change.factors[0] if len(change.factors) == 1 else change.factors[0] @ change.factors[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    """Conversion is exact, also for subnormal numbers and negative zero."""
    values = torch.cat([torch.randn(50), torch.tensor([0.0, -0.0, 1e-40, 6e-8, 6e4])]).to(dtype)
    save_file({"a": torch.ones(3), "b": values.reshape(5, 11)}, tmp_path / "model.safetensors")
    found = stored_tensors(tmp_path)["b"].read()
    expected = values.double() if dtype == torch.float64 else values.float()
    np.testing.assert_array_equal(found, expected.reshape(5, 11).numpy())
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected.reshape(5, 11).numpy()))


def test_sharded_weights_are_read_like_whole_ones(tmp_path: Path) -> None:
    """Sharded weights are read by the index."""
    model = models.build("llama")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole, sharded = stored_tensors(tmp_path / "whole"), stored_tensors(tmp_path / "sharded")
    assert whole.keys() == sharded.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor.read(), sharded[name].read())


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_names_its_writing_matrices(name: str, tmp_path: Path) -> None:
    """Each matrix, changed by a known direction, gives it in every stored form."""
    model = models.build(name)
    model.save_pretrained(tmp_path / "base")
    width = models.WIDTH
    expected = {}
    with torch.no_grad():
        for module_name, module in model.named_modules():
            place = place_of(module_name)
            if place is None:
                continue
            seed = torch.Generator().manual_seed(len(expected))
            inputs = module.weight.numel() // width
            direction = torch.randn(width, 1, generator=seed)
            change = direction @ torch.randn(1, inputs, generator=seed)
            conv1d = type(module).__name__ == "Conv1D"
            module.weight += change.T if conv1d else change
            expected[place] = (direction / direction.norm()).numpy()[:, 0]
    model.save_pretrained(tmp_path / "tuned")
    tuning = between(tmp_path / "base", tmp_path / "tuned")
    assert tuning.blocks == models.LAYERS
    assert set(tuning.places) == set(expected)
    assert len(expected) == 2 * models.LAYERS
    for place, direction in expected.items():
        found = np.linalg.svd(_whole(tuning.change(*place)))[0][:, 0]
        assert abs(found @ direction) > 1 - 1e-6


def test_an_adapter_changes_by_alpha_over_r_times_b_a(tmp_path: Path) -> None:
    """The change is the same with and without the base, which adds only the norm."""
    base = save_model(tmp_path / "base", llama_weights())
    mine = factors(rank=4)
    last = list(mine)[-1]
    mine[last] = factors(seed=1, rank=6)[last]  # what rank_pattern asks for
    adapter = save_adapter(tmp_path / "adapter", mine, lora_alpha=6)
    for tuning in (between(base, adapter), adapter_alone(adapter)):
        assert tuning.places == tuple((block, 0) for block in range(BLOCKS))
        for block, (a, b) in enumerate(mine.values()):
            change = tuning.change(block, 0)
            np.testing.assert_allclose(_whole(change), spectra.lora(a, b, 6, len(a)), rtol=1e-12)
            norm = np.linalg.norm(llama_weights()[f"model.layers.{block}.mlp.down_proj.weight"])
            assert np.isnan(change.base_norm) or change.base_norm == pytest.approx(norm)
    assert between(base, adapter).blocks == BLOCKS
    assert adapter_alone(adapter).blocks is None


def test_rank_stabilised_adapters_divide_by_the_root(tmp_path: Path) -> None:
    """The scale is alpha / sqrt(r), as in arXiv 2312.03732."""
    mine = factors(rank=4)
    adapter = save_adapter(tmp_path / "adapter", mine, lora_alpha=6, use_rslora=True)
    a, b = next(iter(mine.values()))
    found = _whole(adapter_alone(adapter).change(0, 0))
    np.testing.assert_allclose(found, spectra.lora(a, b, 12, 4), rtol=1e-12)


def test_factors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Factors A and B with different ranks are refused."""
    (module, (a, b)), *_ = factors(rank=4).items()
    adapter = save_adapter(tmp_path / "adapter", {module: (a, b[:, :3])})
    with pytest.raises(InputError, match=r"expected lora_A \[rank, in\]"):
        adapter_alone(adapter)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"x": 3}}, "alpha_pattern"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The message names the variant and says to merge it."""
    adapter = save_adapter(tmp_path / "adapter", factors(), **config)
    with pytest.raises(InputError, match=words) as caught:
        adapter_alone(adapter)
    assert "Merge the adapter" in str(caught.value)


def test_an_adapter_of_queries_alone_is_refused(tmp_path: Path) -> None:
    """An adapter of queries only is refused; the message names the watched matrices."""
    adapter = save_adapter(tmp_path / "adapter", factors(part="self_attn.q_proj"))
    with pytest.raises(InputError, match="found changes of q_proj; expected"):
        adapter_alone(adapter)


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Every matrix that does not fit is listed."""
    narrow = {n: w[:, :8] for n, w in llama_weights().items()}
    base = save_model(tmp_path / "base", narrow)
    adapter = save_adapter(tmp_path / "adapter", factors())
    with pytest.raises(InputError, match="does not fit") as caught:
        between(base, adapter)
    for block in range(BLOCKS):
        assert f"down_proj of block {block}: adapter 16 x 24, base 16 x 8" in str(caught.value)


def test_models_that_differ_are_refused_with_every_fault(tmp_path: Path) -> None:
    """A missing block and another shape, in one message."""
    base = save_model(tmp_path / "base", llama_weights())
    other = {n: w for n, w in llama_weights().items() if ".layers.2." not in n}
    other["model.layers.0.mlp.down_proj.weight"] = np.ones((WIDTH, INNER + 1), np.float32)
    tuned = save_model(tmp_path / "tuned", other)
    with pytest.raises(InputError, match="is not a tuned") as caught:
        between(base, tuned)
    message = str(caught.value)
    assert "down_proj of block 0: base 16 x 24, tuned 16 x 25" in message
    assert "o_proj of block 2: base 16 x 16, tuned none" in message


def test_an_unknown_architecture_is_refused_with_what_was_found(tmp_path: Path) -> None:
    """The names of its tensors are shown."""
    unknown = {"backbone.stage_0.mixer.weight": np.ones((4, 4), np.float32)}
    base = save_model(tmp_path / "base", unknown)
    with pytest.raises(InputError, match=r"found 1 tensors \(backbone\.stage_0\.mixer\.weight"):
        between(base, base)


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    """The message says that experts are not supported."""
    moe = {n.replace("down_proj", "experts.0.down_proj"): w for n, w in llama_weights().items()}
    base = save_model(tmp_path / "base", moe)
    with pytest.raises(InputError, match="mixture of experts"):
        between(base, base)


def test_two_towers_are_refused(tmp_path: Path) -> None:
    """Two matrices for one place of a block are refused."""
    both = llama_weights() | {f"vision.{n}": w for n, w in llama_weights().items()}
    base = save_model(tmp_path / "base", both)
    with pytest.raises(InputError, match="Keep the text part"):
        between(base, base)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Non-finite weights are refused."""
    base = save_model(tmp_path / "base", llama_weights())
    broken = llama_weights()
    broken["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    tuning = between(base, save_model(tmp_path / "tuned", broken))
    with pytest.raises(InputError, match=r"layers\.1\.mlp.* not finite"):
        tuning.change(1, 0)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    """Integer matrices are refused."""
    quantised = {n: w.astype(np.int8) for n, w in llama_weights().items()}
    base = save_model(tmp_path / "base", quantised)
    with pytest.raises(InputError, match="is I8; expected one of"):
        between(base, base).change(0, 0)


def test_folders_without_sound_weights_are_refused(tmp_path: Path) -> None:
    """Missing, empty, truncated and foreign files are refused, with what was expected."""
    with pytest.raises(InputError, match="No such file"):
        between(tmp_path / "none", tmp_path / "none")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no \*\.safetensors \(\*\.bin: pytorch_model\.bin\)"):
        between(folder, folder)
    whole = save_model(tmp_path / "whole", llama_weights()) / "model.safetensors"
    (folder / "model.safetensors").write_bytes(whole.read_bytes()[:-8])
    with pytest.raises(InputError, match="expected a complete safetensors file"):
        between(folder, folder)


@pytest.mark.parametrize("listed", [{"a": "../model.safetensors"}, {}, None])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, listed: Any) -> None:
    """An index that names files outside its folder is refused."""
    folder = save_model(tmp_path / "model", llama_weights())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(InputError, match="in the same folder"):
        between(folder, folder)
