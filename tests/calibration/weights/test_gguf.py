"""Weights of GGUF files, read without PyTorch, equal those that transformers reads."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from layerguard.calibration.weights.files import checkpoint
from layerguard.calibration.weights.tuning import between
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.runtime.errors import InputError
from tests.calibration.checkpoints import BLOCKS, factors, save_adapter
from tests.exporter.loading.test_gguf import small
from tests.gguf_files import CONVERTED, save_gguf, smollm2, write


def same_as_transformers(path: Path) -> None:
    """The tensors are the same, with values equal to the bit."""
    causal = load(ModelSource(str(path))).causal
    assert causal is not None
    expected = causal.state_dict()
    if causal.config.tie_word_embeddings:
        expected.pop("lm_head.weight")
    model_type, found = checkpoint(path)
    assert model_type == causal.config.model_type
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        values = tensor.read()
        assert tensor.shape == values.shape == tuple(expected[name].shape), name
        np.testing.assert_array_equal(values, expected[name].numpy(), err_msg=name)


@pytest.mark.parametrize("architecture", CONVERTED)
def test_every_architecture_is_read_as_transformers_does(architecture: str, tmp_path: Path) -> None:
    """Every architecture is equal to the bit, quantised if the rows consist of whole blocks."""
    q8 = gguf.GGMLQuantizationType.Q8_0
    same_as_transformers(
        save_gguf(tmp_path / "small.gguf", small(architecture), architecture, type=q8)
    )


def test_smollm2_is_read_as_transformers_does() -> None:
    """All 272 tensors of a published file in Q4_1 and Q8_0."""
    same_as_transformers(smollm2())


def test_what_tuning_changed_between_two_files(tmp_path: Path) -> None:
    """One row of one matrix differs: the change is that row only."""
    model = small("llama")
    base = save_gguf(tmp_path / "base.gguf", model, "llama")
    model.model.layers[1].self_attn.o_proj.weight.data[5] += 1
    tuned = save_gguf(tmp_path / "tuned.gguf", model, "llama")
    tuning = between(base, tuned)
    assert tuning.blocks == 3
    (change,) = tuning.change(1, 1).factors
    np.testing.assert_allclose(change[5], 1, atol=1e-6)
    assert not np.delete(change, 5, axis=0).any()
    (change,) = tuning.change(1, 0).factors
    assert not change.any()


def test_an_adapter_is_held_to_its_base(tmp_path: Path) -> None:
    """An adapter with other widths does not fit the file."""
    base = save_gguf(tmp_path / "base.gguf", small("llama"), "llama")
    adapter = save_adapter(tmp_path / "adapter", factors())
    with pytest.raises(InputError, match="adapter 16 x 24, base 32 x 64") as caught:
        between(base, adapter)
    assert str(caught.value).count("\n") == BLOCKS


def test_an_architecture_of_unknown_names_is_refused(tmp_path: Path) -> None:
    """An unknown architecture is refused by name, and so is an unknown tensor."""
    matrix = {"blk.0.attn_q.weight": np.ones((32, 32), np.float32)}
    write(tmp_path / "odd.gguf", "bloom", {}, matrix)
    with pytest.raises(InputError, match=r"odd\.gguf is of architecture bloom; expected one of ll"):
        checkpoint(tmp_path / "odd.gguf")
    write(tmp_path / "more.gguf", "qwen2", {}, {"blk.0.ffn_gate_exps.weight": matrix.popitem()[1]})
    with pytest.raises(InputError, match=r"tensor 'blk\.0\.ffn_gate_exps\.weight'"):
        checkpoint(tmp_path / "more.gguf")


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    """Reading GGUF weights imports neither torch nor transformers."""
    path = save_gguf(tmp_path / "small.gguf", small("llama"), "llama")
    code = (
        "import sys; from pathlib import Path;"
        "from layerguard.calibration.weights.tuning import between;"
        f"p = Path({str(path)!r}); between(p, p).change(0, 0);"
        "print(sorted({'torch', 'transformers', 'safetensors.torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
