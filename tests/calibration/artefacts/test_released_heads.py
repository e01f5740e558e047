"""Malformed released heads: every fault is reported."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from layerguard.calibration.artefacts.released_head import read
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array
from tests.peers.siren_heads import agent_head, content_head, write_head

Tensors = dict[str, Array]
Edit = Callable[[dict[str, Any]], Any]
_NEURONS = "selected_neurons_dict"


def small(kind: str) -> tuple[dict[str, Any], Tensors]:
    """A valid head of either kind."""
    return agent_head("tiny", 2) if kind == "agent" else content_head("tiny", blocks=(0, 2))


def refused(folder: Path, config: dict[str, Any], tensors: Tensors) -> str:
    """The error message for a head that is refused."""
    with pytest.raises(InputError) as raised:
        read(write_head(folder / "head", config, tensors))
    return str(raised.value)


@pytest.mark.parametrize("kind", ["content", "agent"])
def test_a_sound_head_is_read(tmp_path: Path, kind: str) -> None:
    """The parameters follow the files; state l + 1 is the output of block l."""
    config, tensors = small(kind)
    head = read(write_head(tmp_path, config, tensors))
    assert head.base_model.model_id == "tiny"
    assert (head.last_layer, head.threshold) == ((2, 0.5) if kind == "agent" else (3, 0.5))
    if kind == "content":
        neurons = config["siren_module"][_NEURONS]
        assert head.params["layers"].tolist() == [1, 3]
        assert head.params["alpha"] == pytest.approx([1, 0.7])
        assert head.params["neurons"].tolist() == [
            *neurons["layer0_residual_mean"],
            *neurons["layer2_residual_mean"],
        ]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("content", path)
        for path in (
            "base_model", "base_model.model_id", "mlp", "mlp.input_dim", "mlp.layer_dims",
            "mlp.dropout_rates", "siren_module", "siren_module.pooling_type",
            "siren_module.selected_layers", "siren_module.layer_weights",
            f"siren_module.{_NEURONS}", "inference", "inference.max_length",
            "inference.default_threshold",
        )
    ]
    + [
        ("agent", path)
        for path in (
            "render.tools", "render.truncation", "siren_module.hidden_state_index",
            "siren_module.early_exit_blocks", "siren_module.pooling_type",
        )
    ],
)  # fmt: skip
def test_a_missing_key_is_named(tmp_path: Path, kind: str, path: str) -> None:
    """A missing key and a value of another type are reported."""
    config, tensors = small(kind)
    *above, key = path.split(".")
    section = config[above[0]] if above else config
    del section[key]
    assert f"no key {key!r}" in refused(tmp_path, config, tensors)
    section[key] = True
    assert f"{path}: found True" in refused(tmp_path, config, tensors)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda c: c.update(task="other"), "task is 'other'; expected 'content' or 'trajectory'"),
        (lambda c: c["mlp"].update(num_classes=3), "num_classes is 3; expected 2"),
        (lambda c: c["mlp"].update(dropout_rates=[0.1]), "2 layer_dims and 1 dropout_rates"),
        (lambda c: c["mlp"].update(dropout_rates=[0.1, -1]), "expected shares from 0 to 1"),
        (lambda c: c["mlp"].update(layer_dims=[0, 4]), "expected widths of 1 or more"),
        (lambda c: c["mlp"].update(input_dim=7), "input_dim is 7; expected 34"),
        (lambda c: c["inference"].update(max_length=7), "max_length is 7; expected at least 8"),
        (lambda c: c["inference"].update(default_threshold=2), "threshold is 2.0; expected 0 to 1"),
        (lambda c: c["siren_module"].update(pooling_type="last"), "expected 'residual_mean' or"),
        (lambda c: c["siren_module"].update(selected_layers=[]), "expected block numbers"),
        (lambda c: c["siren_module"].update(selected_layers=[0, 0, 2]), "each once"),
        (lambda c: c["siren_module"].update(selected_layers=[-1, 2]), "expected block numbers"),
        (lambda c: c["siren_module"].update(selected_layers=[0, 1, 2]), "no neurons for the sel"),
        (lambda c: c["siren_module"].update(layer_weights={"x": 1.0}), "layer_weights has 'x'"),
        (lambda c: c["siren_module"].update(layer_weights={"0": 1e300}), "layer_weights has '0'"),
        (lambda c: c["siren_module"][_NEURONS].update(layer2_mlp_mean=[1]), "'layer2_mlp_mean'"),
        (lambda c: c["siren_module"][_NEURONS].update({"../x": [1]}), "has the key '../x'"),
        (lambda c: c["siren_module"][_NEURONS].update(layer3_x=[-1]), "indices below 0"),
        (lambda c: c["siren_module"][_NEURONS].update(layer3_x=[1 << 31]), "above 2^31"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, edit: Edit, fault: str) -> None:
    """Values of the right type that contradict each other are reported."""
    config, tensors = small("content")
    edit(config)
    assert fault in refused(tmp_path, config, tensors)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda c: c["siren_module"].update(early_exit_blocks=3), "expected the same number"),
        (lambda c: c["siren_module"].update(hidden_state_index=-1, early_exit_blocks=-1), "is -1"),
        (lambda c: c["render"].update(tools="plain"), "render.tools: found 'plain'"),
        (lambda c: c["render"].update(truncation="tail"), "render.truncation: found 'tail'"),
    ],
)
def test_contradictions_of_an_agents_head_are_named(tmp_path: Path, edit: Edit, fault: str) -> None:
    """Only the published rendering is accepted."""
    config, tensors = small("agent")
    edit(config)
    assert fault in refused(tmp_path, config, tensors)


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    """One error message lists all faults."""
    config, tensors = small("content")
    del config["base_model"], config["mlp"]["layer_dims"]
    config["inference"]["max_length"] = "long"
    message = refused(tmp_path, config, tensors)
    assert message.count("\n  - ") == 3


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.pop("network.0.bias"), "network.0.bias is missing"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "'extra' is unknown"),
        (lambda t: t.update({"network.0.weight": np.zeros((24, 5), np.float32)}), "is [24, 5]; ex"),
        (lambda t: t.update({"network.0.bias": np.zeros((24, 1), np.float32)}), "is [24, 1]; exp"),
        (lambda t: t.update({"network.0.bias": np.full(24, np.nan, np.float32)}), "not finite"),
        (lambda t: t.update({"network.0.bias": np.full(24, 1e300)}), "not finite in float32"),
        (lambda t: t.update({"network.0.bias": np.zeros(24, np.int64)}), "is I64; expected one of"),
    ],
)
def test_tensors_that_are_not_the_configured_ones_are_refused(
    tmp_path: Path, edit: Edit, fault: str
) -> None:
    """Names, shapes and dtypes must match the configuration, and values must be finite."""
    config, tensors = small("content")
    edit(tensors)
    assert fault in refused(tmp_path, config, tensors)


def test_a_dropout_of_zero_shifts_the_keys(tmp_path: Path) -> None:
    """A dropout rate of 0 adds no layer, so later layers have smaller numbers."""
    with_it, without = content_head("tiny"), content_head("tiny", dropout=0.0)
    assert "network.3.weight" in with_it[1]
    assert "network.2.weight" in without[1]
    heads = [read(write_head(tmp_path / str(i), *h)) for i, h in enumerate((with_it, without))]
    assert np.array_equal(heads[0].params["weight_1"], heads[1].params["weight_1"])
    assert "network.2.weight' is unknown" in refused(tmp_path, with_it[0], without[1])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    """Other float types are converted to float32, as in the published runtime."""
    config, tensors = small("agent")
    narrow = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    head = read(write_head(tmp_path, config, narrow))
    expected = narrow["head.weight"].astype(np.float32)
    assert np.array_equal(head.params["weight_0"], np.concatenate([0 * expected, expected]))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[1]", "found list; expected an object"),
        (b'{"task": 1}', "task is 1; expected"),
        (b'{"task": "content", "task": "content"}', "appears twice"),
        (b'{"a":' * 100_000, "is not JSON"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, data: bytes, fault: str) -> None:
    """Bytes that are not a JSON object of a head are refused."""
    folder = write_head(tmp_path, *small("content"))
    (folder / "siren_config.json").write_bytes(data)
    with pytest.raises(InputError, match=fault):
        read(folder)


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle.", b"\xff" * 64])
def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    """Other formats are refused, also a pickle, which is never loaded."""
    folder = write_head(tmp_path, *small("content"))
    (folder / "siren.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="expected a complete safetensors file"):
        read(folder)


@pytest.mark.parametrize("name", ["siren_config.json", "siren.safetensors"])
def test_files_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    """A missing file, a folder and a pipe are refused."""
    folder = write_head(tmp_path, *small("content"))
    path = folder / name
    path.unlink()
    for make in (lambda: None, path.mkdir, lambda: (path.rmdir(), os.mkfifo(path))):
        make()
        with pytest.raises(InputError, match=f"{name}: no such file; expected a released head"):
            read(folder)


def test_files_beyond_all_heads_are_refused_unread(tmp_path: Path) -> None:
    """A sparse file of a terabyte is refused without being read."""
    folder = write_head(tmp_path, *small("content"))
    for name in ("siren.safetensors", "siren_config.json"):
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 40)
        with pytest.raises(InputError, match=f"{name} has 1099511627776 bytes; expected at most"):
            read(folder)


def test_a_file_beside_them_is_not_read(tmp_path: Path) -> None:
    """Other files in the folder are ignored."""
    folder = write_head(tmp_path, *small("agent"))
    save_file({"head.weight": np.zeros((1, 9), np.float32)}, folder / "model.safetensors")
    (folder / "best_model.pkl").write_bytes(b"\x80\x04pickle.")
    (folder / "config.json").write_text(json.dumps({"task": "content"}))
    assert read(folder).params["neurons"].size == 32
