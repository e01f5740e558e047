"""Read ``siren_config.json`` into frozen dataclasses, and list every invalid value.

The keys are those that the published runtime (llm-siren 0.2.0) reads. It ignores all other keys,
so they do not change a score. This module ignores them too, and reports them.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from layerguard.runtime.bundle.schema import decode, parse
from layerguard.runtime.errors import InputError

NAME = "siren_config.json"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The transformer on which the head was trained, by its name on the hub."""

    model_id: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """The network; a dropout rate of 0 adds no layer, so later weights have smaller numbers."""

    input_dim: int
    layer_dims: tuple[int, ...]
    dropout_rates: tuple[float, ...]
    num_classes: int = 2


@dataclass(frozen=True, slots=True)
class Neurons:
    """SIREN's inputs; blocks are numbered from 0, and a block without a weight has weight 1."""

    pooling_type: Literal["residual_mean", "mlp_mean"]
    selected_layers: tuple[int, ...]
    layer_weights: dict[str, float]
    selected_neurons_dict: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LastToken:
    """Agent-SIREN's input: one entry of ``hidden_states``; entry 0 is the embedding's output."""

    pooling_type: Literal["last"]
    hidden_state_index: int
    early_exit_blocks: int


@dataclass(frozen=True, slots=True)
class Render:
    """How a trajectory becomes text; only one variant has been published."""

    tools: Literal["rich"]
    truncation: Literal["head_tail"]


@dataclass(frozen=True, slots=True)
class Inference:
    """The token budget of a text, and the least score of a harmful text."""

    max_length: int
    default_threshold: float


@dataclass(frozen=True, slots=True)
class ContentConfig:
    """The configuration of a SIREN head."""

    base_model: BaseModel
    mlp: Network
    siren_module: Neurons
    inference: Inference
    task: Literal["content"] = "content"


@dataclass(frozen=True, slots=True)
class TrajectoryConfig:
    """The configuration of an Agent-SIREN head."""

    base_model: BaseModel
    siren_module: LastToken
    render: Render
    inference: Inference
    task: Literal["trajectory"]


_KINDS = {"content": ContentConfig, "trajectory": TrajectoryConfig}


def read_config(data: bytes) -> tuple[ContentConfig | TrajectoryConfig, tuple[str, ...]]:
    """The configuration in ``data``, and the names of the ignored keys.

    Raises:
        InputError: lists every fault.
    """
    try:
        value = decode(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{NAME} is not JSON ({error}); expected the configuration of a released head"
        ) from error
    if not isinstance(value, Mapping):
        raise InputError(f"{NAME}: found {type(value).__name__}; expected an object")
    task = value.get("task", "content")
    kind = _KINDS.get(task) if isinstance(task, str) else None
    if kind is None:
        raise InputError(f"{NAME}: task is {task!r:.60}; expected 'content' or 'trajectory'")
    ignored: list[str] = []
    faults: list[str] = []
    config = parse(kind, _known(kind, value, "", ignored), NAME, faults)
    faults = faults or _value_faults(config)
    if faults:
        raise InputError(listed(f"{NAME} is not a valid configuration of a {task} head", faults))
    return config, tuple(ignored)


def listed(summary: str, faults: list[str]) -> str:
    """An error message with one line for each fault; it shows the first twenty."""
    shown = faults[:20] + ([f"and {len(faults) - 20} more"] if len(faults) > 20 else [])
    return summary + ":" + "".join(f"\n  - {fault}" for fault in shown)


def _known(kind: Any, value: Mapping[str, Any], path: str, ignored: list[str]) -> dict[str, Any]:
    """``value`` without the keys that ``kind`` does not have; these are added to ``ignored``."""
    hints = typing.get_type_hints(kind)
    ignored += [f"{path}{key}"[:80] for key in value if key not in hints]
    return {
        key: _known(hints[key], item, f"{key}.", ignored)
        if dataclasses.is_dataclass(hints[key]) and isinstance(item, Mapping)
        else item
        for key, item in value.items()
        if key in hints
    }


def _value_faults(config: ContentConfig | TrajectoryConfig) -> list[str]:
    """Faults of values that have the right type and are out of range."""
    inference = config.inference
    faults = []
    if inference.max_length < 8:
        faults.append(f"inference.max_length is {inference.max_length}; expected at least 8")
    if not 0 <= inference.default_threshold <= 1:
        threshold = inference.default_threshold
        faults.append(f"inference.default_threshold is {threshold}; expected 0 to 1")
    if isinstance(config, ContentConfig):
        faults += _network_faults(config.mlp)
    return faults


def _network_faults(network: Network) -> list[str]:
    widths, rates = network.layer_dims, network.dropout_rates
    faults = []
    if len(widths) != len(rates):
        faults.append(
            f"mlp has {len(widths)} layer_dims and {len(rates)} dropout_rates; expected one each"
        )
    if not all(width >= 1 for width in (network.input_dim, *widths)):
        all_widths = [network.input_dim, *widths]
        faults.append(
            f"mlp.input_dim and layer_dims are {all_widths}; expected widths of 1 or more"
        )
    if not all(0 <= rate <= 1 for rate in rates):
        faults.append(f"mlp.dropout_rates are {list(rates)}; expected shares from 0 to 1")
    if network.num_classes != 2:
        faults.append(f"mlp.num_classes is {network.num_classes}; expected 2, safe and harmful")
    return faults
