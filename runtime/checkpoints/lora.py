"""LoRA adapters in PEFT's format: checks that an adapter is plain LoRA, and pairs its tensors.

In plain LoRA the tuned weight is W + scale B A, where W is the published weight of the base model
(Low-Rank Adaptation, arXiv 2106.09685). PEFT's configuration has a few dozen settings. A value that
changes this formula is refused by name: if it adds terms (DoRA, biases), applies to some tokens
only (aLoRA), or changes W before training. The initialisations of PiSSA, OLoRA, CorDA, LoRA-GA and
LoftQ do the last: their A and B belong to a W that is not saved. A setting that this release does
not know is refused too, unless it is empty.
"""

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from layerguard.runtime.checkpoints.json_object import read_json
from layerguard.runtime.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_LARGEST_ALPHA = 1e6
_LARGEST_RANK = 1 << 16
_SHOWN = 60
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring = 2, _SHOWN

_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "use_rslora": (True, False, None),
    "lora_bias": (False, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "modules_to_save": ([], None),
    "alpha_pattern": ({}, None),
    "trainable_token_indices": ({}, [], None),
    "target_parameters": ([], None),
    "layer_replication": ([], None),
    "alora_invocation_tokens": (None,),
    "loftq_config": ({}, None),
    "corda_config": ({}, None),
    "lora_ga_config": ({}, None),
    "arrow_config": ({}, None),
    "kasa_config": ({}, None),
    "monteclora_config": ({}, None),
    "velora_config": ({}, None),
    "megatron_config": ({}, None),
}
"""Settings that can change the formula, with the values for which it stays plain LoRA."""

_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform",
    "lora_alpha", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type",
})  # fmt: skip
"""Settings that this module reads, that follow from the tensors, or that only affect training.

``fan_in_fan_out`` is one of them: PEFT and the readers both derive it from the type of the layer.
"""


class HasShape(Protocol):
    """A tensor with a shape, in PyTorch or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


T = TypeVar("T", bound=HasShape)


@dataclass(frozen=True, slots=True)
class Lora:
    """The configuration of a plain LoRA adapter.

    Attributes:
        alpha: numerator of the scale.
        stabilised: whether the scale is alpha / sqrt(rank), arXiv 2312.03732, instead of
            alpha / rank.
        base: name of the base model in the configuration; None if it is missing.
    """

    alpha: float
    stabilised: bool
    base: str | None

    def scale(self, rank: int) -> float:
        """The factor of B A. ``rank`` is the rank of the matrices, which may vary by module."""
        return self.alpha / (math.sqrt(rank) if self.stabilised else rank)


def is_adapter(folder: Path) -> bool:
    """Whether a folder contains an adapter and not a whole model."""
    return (folder / CONFIG).exists()


def read_lora(folder: Path) -> Lora:
    """Read the configuration of the adapter in a folder.

    Raises:
        InputError: the configuration is missing, or is not plain LoRA; all reasons are listed.
    """
    config = read_json(folder / CONFIG)
    faults = [
        f"{name} is {_short(config[name])}"
        for name, plain in _PLAIN.items()
        if name in config and not _is_one_of(config[name], plain)
    ]
    if "peft_type" not in config:
        faults.append("peft_type is missing")
    faults += [
        f"{name} is {_short(value)}, a setting that this release does not know"
        for name, value in config.items()
        if name not in _PLAIN and name not in _HARMLESS and not _is_empty(value)
    ]
    alpha, rank = config.get("lora_alpha"), config.get("r", 1)
    if not _is_number(alpha):
        faults.append(f"lora_alpha is {_short(alpha)}, not a number")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= _LARGEST_RANK:
        faults.append(f"r is {_short(rank)}, not a rank from 1 to {_LARGEST_RANK}")
    if faults:
        raise InputError(
            f"adapter {folder.name} is not plain LoRA: {'; '.join(faults)} ({CONFIG}). Merge the "
            "adapter into its base with peft's merge_and_unload, save the merged model and give "
            "that"
        )
    assert isinstance(alpha, int | float)
    base = config.get("base_model_name_or_path")
    return Lora(
        float(alpha), bool(config.get("use_rslora")), base if isinstance(base, str) else None
    )


def paired(folder: Path, tensors: Mapping[str, T]) -> dict[str, tuple[T, T]]:
    """The pair A [rank, in] and B [out, rank] for each module, sorted by module name.

    Args:
        folder: folder of the adapter, for messages.
        tensors: tensors of the adapter's file, by name.

    Raises:
        InputError: a tensor is not a LoRA factor, or a factor has no matching partner; all faults
            are listed.
    """
    factors: dict[str, dict[str, T]] = {}
    faults = []
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            faults.append(
                f"found tensor {name[:120]!r}; expected base_model.model.<module>.lora_A.weight"
            )
        else:
            factors.setdefault(match["module"], {})[match["side"]] = tensor
    for module, sides in factors.items():
        shapes = {f"lora_{side}": list(sides[side].shape) for side in sorted(sides)}
        down, up = shapes.get("lora_A", []), shapes.get("lora_B", [])
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or down[0] < 1:
            faults.append(
                f"{module} has {shapes}; expected lora_A [rank, in] and lora_B [out, rank]"
            )
    if not tensors:
        faults.append("found no pair of matrices; expected at least one")
    if faults:
        listed = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")
        raise InputError(
            f"adapter {folder.name} is not plain LoRA: {listed}. Merge it with peft's "
            "merge_and_unload, save the merged model and give that"
        )
    return {module: (sides["A"], sides["B"]) for module, sides in sorted(factors.items())}


def _is_number(value: object) -> bool:
    """Whether ``value`` is a finite number in the range of a possible alpha."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST_ALPHA  # false for NaN too


def _is_one_of(value: object, plain: tuple[object, ...]) -> bool:
    """Whether ``value`` is in ``plain``; types are compared too, because 1 == True in Python."""
    return any(type(value) is type(option) and value == option for option in plain)


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _short(value: object) -> str:
    text = _REPR.repr(value)  # bounded in depth and breadth for any value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
