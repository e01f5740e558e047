"""Adapters and trait files from strangers."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from layerguard.calibration.drift.traits import read_traits
from layerguard.calibration.weights.tuning import adapter_alone
from layerguard.runtime.checkpoints.lora import read_lora
from layerguard.runtime.errors import InputError
from tests.attacks.attack import Attack

_PLAIN = '"peft_type": "LORA", "bias": "none"'
_SETTINGS = {
    "an alpha that is no number": '"r": 16, "lora_alpha": NaN',
    "an alpha of 1e308": '"r": 16, "lora_alpha": 1e308',
    "a rank of nothing": '"r": 0, "lora_alpha": 32',
    "a rank of a thousand million": '"r": 1000000000, "lora_alpha": 32',
    "a rank of 5,000 digits": f'"r": {"9" * 5_000}, "lora_alpha": 32',
    "settings that are deep": f'"r": 16, "lora_alpha": {"[" * 100_000}{"]" * 100_000}',
}


def _one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text.isprintable()
    assert len(text) < 1_000


def _settings(case: str, folder: Path) -> None:
    text = f"{{{_PLAIN}, {_SETTINGS[case]}}}"
    (folder / "adapter_config.json").write_text(text, encoding="ascii")
    with pytest.raises(InputError) as caught:
        read_lora(folder)
    _one_sentence(caught.value)


def _pipe(name: str, folder: Path) -> None:
    settings = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="ascii")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError) as caught:
        adapter_alone(folder)
    _one_sentence(caught.value)


def _laughs(folder: Path) -> None:
    lines = ["a0: &a0 ha"]
    for n in range(1, 30):
        aliases = ", ".join([f"*a{n - 1}"] * 10)
        lines.append(f"a{n}: &a{n} [{aliases}]")
    _traits("\n".join(lines), folder)


def _deep_traits(folder: Path) -> None:
    _traits("[" * 100_000, folder)


def _program(folder: Path) -> None:
    _traits(f"!!python/object/apply:os.mkdir ['{folder}/ran']", folder)
    assert not (folder / "ran").exists()


def _traits(text: str, folder: Path) -> None:
    path = folder / "traits.yaml"
    path.write_text(text, encoding="ascii")
    with pytest.raises(InputError) as caught:
        read_traits(path)
    assert len(str(caught.value)) < 1_000


def _pipe_of_traits(folder: Path) -> None:
    os.mkfifo(folder / "traits.yaml")
    with pytest.raises(InputError) as caught:
        read_traits(folder / "traits.yaml")
    _one_sentence(caught.value)


ATTACKS = (
    *(Attack(f"an adapter: {case}", partial(_settings, case)) for case in _SETTINGS),
    Attack("an adapter: settings in a pipe", partial(_pipe, "adapter_config.json")),
    Attack("an adapter: weights in a pipe", partial(_pipe, "adapter_model.safetensors")),
    Attack("traits that laugh", _laughs),
    Attack("traits that are deep", _deep_traits),
    Attack("traits with a program", _program),
    Attack("traits in a pipe", _pipe_of_traits),
)
