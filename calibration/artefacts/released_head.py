"""Read a released folder as a ``Head``: its inputs, its network and its threshold."""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration.artefacts import config as released
from layerguard.calibration.artefacts.config import ContentConfig, TrajectoryConfig, listed
from layerguard.calibration.weights.files import tensors_of
from layerguard.runtime.detectors import siren
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array, Semantics, Tap, TokenBudget

WEIGHTS = "siren.safetensors"
_MAX_CONFIG_BYTES = 64 << 20
_MAX_WEIGHT_BYTES = 1 << 30
"""The largest published head has 224 MB."""

_BLOCK = re.compile(r"layer([0-9]{1,4})(_[a-z_]+)?")


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A released head.

    Attributes:
        detector: ``siren`` or ``agent_siren``.
        base_model: the model on which it was trained.
        tap: its inputs; ``semantics`` is llm-siren's own choice.
        params: parameters of SIREN's detector, without threshold and calibration.
        threshold: the published threshold: a text with this score or more is harmful.
        ignored: ignored keys of its configuration.
        sha256: hash of each of its two files, by name.
    """

    detector: str
    base_model: released.BaseModel
    tap: Tap
    params: Mapping[str, Array]
    threshold: float
    ignored: tuple[str, ...]
    sha256: Mapping[str, str]

    @property
    def last_layer(self) -> int:
        """The highest state that the head reads; later blocks do not change the score."""
        return int(self.params["layers"].max())


def read(folder: Path) -> Head:
    """Read the head in a released folder.

    Raises:
        InputError: a file is missing, too large or malformed; lists every fault of the file.
    """
    data = _file(folder / released.NAME, _MAX_CONFIG_BYTES).read_bytes()
    weights = _file(folder / WEIGHTS, _MAX_WEIGHT_BYTES)
    config, ignored = released.read_config(data)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(config, ContentConfig):
        detector, params, tap = siren.NAME, _content(config, weights), _content_tap(config)
    else:
        detector, params, tap = siren.AGENT_NAME, _trajectory(config, weights), _agent_tap(config)
    return Head(
        detector=detector,
        base_model=config.base_model,
        tap=tap,
        params=params,
        threshold=config.inference.default_threshold,
        ignored=ignored,
        sha256={released.NAME: hashlib.sha256(data).hexdigest(), WEIGHTS: digest},
    )


def _file(path: Path, max_bytes: int) -> Path:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a released head, a folder with {released.NAME} and "
            f"{WEIGHTS}"
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise InputError(f"{path} has {size} bytes; expected at most {max_bytes}")
    return path


def _content_tap(config: ContentConfig) -> Tap:
    budget = TokenBudget("head", config.inference.max_length)
    if config.siren_module.pooling_type == "mlp_mean":
        return Tap("content", "mlp_mean", "block", budget)
    return Tap("content", "mean", "hf", budget)


def _agent_tap(config: TrajectoryConfig) -> Tap:
    semantics: Semantics = "block"  # llm-siren drops the final norm with the blocks above
    return Tap(
        "trajectory", "last", semantics, TokenBudget("head-tail", config.inference.max_length)
    )


def _content(config: ContentConfig, weights: Path) -> dict[str, Array]:
    """SIREN's parameters; the inputs of the first linear map are ordered by layer."""
    module, network = config.siren_module, config.mlp
    faults: list[str] = []
    neurons = _by_block(module.selected_neurons_dict, faults)
    alpha = _alpha(module.layer_weights, faults)
    blocks = sorted(module.selected_layers)
    if not blocks or blocks[0] < 0 or len(set(blocks)) < len(blocks):
        faults.append(f"selected_layers is {blocks}; expected block numbers, each once")
    lacking = sorted(set(blocks) - neurons.keys())
    if lacking:
        faults.append(f"selected_neurons_dict has no neurons for the selected layers {lacking}")
    sizes = [len(neurons.get(block, ())) for block in blocks]
    if sum(sizes) != network.input_dim:
        faults.append(
            f"mlp.input_dim is {network.input_dim}; expected {sum(sizes)}, the neurons of all "
            "selected layers"
        )
    if faults:
        raise InputError(listed(f"{released.NAME} contradicts itself", faults))
    widths = [network.input_dim, *network.layer_dims, network.num_classes]
    steps = [3 if rate > 0 else 2 for rate in network.dropout_rates]
    places = itertools.accumulate(steps, initial=0)
    shapes: dict[str, tuple[int | None, ...]] = {}
    for place, (inputs, outputs) in zip(places, itertools.pairwise(widths), strict=True):
        shapes[f"network.{place}.weight"] = (outputs, inputs)
        shapes[f"network.{place}.bias"] = (outputs,)
    arrays = list(_tensors(weights, shapes).values())
    chosen = [neurons[block] for block in blocks]
    return {
        "layers": np.array(blocks, np.int32) + np.int32(1),
        "neuron_offsets": np.cumsum([0, *sizes]).astype(np.int32),
        "neurons": np.array(list(itertools.chain(*chosen)), np.int32),
        "alpha": np.array([alpha.get(block, 1.0) for block in blocks], np.float32),
        **{f"weight_{i}": array for i, array in enumerate(arrays[::2])},
        **{f"bias_{i}": array for i, array in enumerate(arrays[1::2])},
    }


def _trajectory(config: TrajectoryConfig, weights: Path) -> dict[str, Array]:
    """Agent-SIREN's parameters as one linear map: sigmoid(x) is softmax((0, x))[1]."""
    module = config.siren_module
    if not 0 <= module.hidden_state_index == module.early_exit_blocks:
        raise InputError(
            f"{released.NAME}: hidden_state_index is {module.hidden_state_index} and "
            f"early_exit_blocks {module.early_exit_blocks}; expected the same number: the state "
            "after so many blocks"
        )
    tensors = _tensors(weights, {"head.weight": (1, None), "head.bias": (1,)})
    weight, bias = tensors["head.weight"], tensors["head.bias"]
    width = weight.shape[1]
    return {
        "layers": np.array([module.hidden_state_index], np.int32),
        "neuron_offsets": np.array([0, width], np.int32),
        "neurons": np.arange(width, dtype=np.int32),
        "alpha": np.ones(1, np.float32),
        "weight_0": np.concatenate([np.zeros_like(weight), weight]),
        "bias_0": np.concatenate([np.zeros_like(bias), bias]),
    }


def _by_block(named: Mapping[str, tuple[int, ...]], faults: list[str]) -> dict[int, Array]:
    """The neurons by block number; appends to ``faults``."""
    by_block: dict[int, Array] = {}
    for key, neurons in named.items():
        match = _BLOCK.fullmatch(key)
        if match is None or int(match[1]) in by_block:
            faults.append(
                f"selected_neurons_dict has the key {key!r:.60}; expected 'layer0_residual_mean' "
                "and the like, one for each block"
            )
        elif not all(0 <= neuron < 1 << 31 for neuron in neurons):
            faults.append(f"selected_neurons_dict.{key} has indices below 0 or above 2^31")
        else:
            by_block[int(match[1])] = np.array(neurons, np.int32)
    return by_block


def _alpha(named: Mapping[str, float], faults: list[str]) -> dict[int, float]:
    """The layer weights by block number; appends to ``faults``."""
    weights: dict[int, float] = {}
    for key, value in named.items():
        if not (key.isascii() and key.isdigit()) or int(key) in weights or abs(value) > 1e30:
            faults.append(
                f"layer_weights has {key!r:.60}: {value}; expected a weight for a block's number, "
                "each once"
            )
        else:
            weights[int(key)] = value
    return weights


def _tensors(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Array]:
    """Read the named tensors as float32, in that order, after checking all shapes."""
    stored = {tensor.name: tensor for tensor in tensors_of(path)}
    faults = [f"{name[:80]!r} is unknown" for name in stored if name not in shapes]
    for name, shape in shapes.items():
        stored_shape = stored[name].shape if name in stored else None
        if stored_shape is None:
            faults.append(f"{name} is missing")
        elif len(stored_shape) != len(shape) or not all(
            side >= 1 and expected in (None, side)
            for side, expected in zip(stored_shape, shape, strict=True)
        ):
            sides = ["any" if side is None else side for side in shape]
            faults.append(f"{name} is {list(stored_shape)}; expected {sides}")
    if faults:
        raise InputError(listed(f"{path} does not match {released.NAME}", faults))
    arrays = {}
    for name in shapes:
        with np.errstate(over="ignore"):
            arrays[name] = stored[name].read().astype(np.float32)
        if not np.isfinite(arrays[name]).all():
            raise InputError(
                f"{path}: {name} has values that are not finite in float32; expected finite ones. "
                "Download the head again"
            )
    return arrays
