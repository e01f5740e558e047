"""LoRA adapters in PEFT's format, merged into the weights: W += scale * B A (arXiv 2106.09685).

peft itself is not needed. Whatever a plain merge would get wrong is refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerguard.runtime.errors import ExportError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_NOT_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": ([], None),
    "alpha_pattern": ({}, None),
    "trainable_token_indices": ({}, [], None),
}
"""Settings that change more, or otherwise, than W += scale * B A; by setting, what is plain."""


def merge(model: nn.Module, prefix: str, folder: Path) -> None:
    """Add an adapter's products to the weights of ``model``, in place.

    The rank is that of each pair of matrices; the scale is alpha / rank, with ``use_rslora``
    alpha / sqrt(rank).

    Args:
        model: float32; with its head or the bare backbone.
        prefix: the backbone's name inside a model with a head, for an adapter that was trained on
            one and is merged into the other.
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        ExportError: there is no adapter, it is not plain LoRA, or it belongs to another model.
    """
    config = _read_config(folder)
    for name, (down, up) in _factors(folder).items():
        module = _find(model, name, prefix)
        rank = len(down)
        scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
        change = scale * (up @ down)
        if isinstance(module, Conv1D):  # GPT-2 keeps its weights transposed
            change = change.T
        weight = None if module is None else module.weight
        if (
            not isinstance(module, nn.Linear | Conv1D)
            or weight is None
            or weight.shape != change.shape
        ):
            shape = list(weight.shape) if isinstance(weight, Tensor) else "nothing of that name"
            raise ExportError(
                f"adapter {folder.name} changes {name} by {list(change.shape)}; the model has "
                f"{shape} there. Expected a linear layer of that shape: name the model that the "
                f"adapter was trained on ({CONFIG} says {config.get('base_model_name_or_path')})"
            )
        if _is_tied(model, module):
            raise ExportError(
                f"adapter {folder.name} changes {name}, whose weight is the token embedding's as "
                "well; expected linear layers of their own. Train the adapter without that module"
            )
        with torch.no_grad():
            weight += change


def _read_config(folder: Path) -> dict[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ExportError(
                f"{folder} has no {name}; expected an adapter as save_pretrained of peft writes it "
                f"({CONFIG} and {WEIGHTS})"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"adapter {folder.name}: {CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("lora_alpha"), int | float):
        raise ExportError(f"adapter {folder.name}: {CONFIG} has no number lora_alpha; expected one")
    strange = [
        f"{name} is {config[name]!r}"
        for name, plain in _NOT_PLAIN.items()
        if name in config and config[name] not in plain
    ]
    if strange:
        raise ExportError(
            f"adapter {folder.name} is not plain LoRA: {', '.join(strange)}. Merge it with "
            "peft's merge_and_unload, save the merged model and export that"
        )
    return config


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """By module name: A [rank, in] and B [out, rank], float32."""
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"adapter {folder.name}: {WEIGHTS} cannot be read ({error}); copy it again"
        ) from error
    if not tensors:
        raise ExportError(f"adapter {folder.name} holds no pair of matrices; expected some")
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _FACTOR.fullmatch(key)
        if match is None:
            raise ExportError(
                f"adapter {folder.name} holds {key!r}; expected names such as base_model.model."
                "<module>.lora_A.weight alone. Merge it with peft's merge_and_unload, save the "
                "merged model and export that"
            )
        found.setdefault(match["module"], {})[match["side"]] = tensor.to(torch.float32)
    for name, sides in found.items():
        down, up = sides.get("A"), sides.get("B")
        if down is None or up is None or down.ndim != 2 or up.shape[1:] != down.shape[:1]:
            shapes = {f"lora_{side}": list(tensor.shape) for side, tensor in sorted(sides.items())}
            raise ExportError(
                f"adapter {folder.name}: {name} has {shapes}; expected lora_A [rank, in] and "
                "lora_B [out, rank]"
            )
    return {name: (sides["A"], sides["B"]) for name, sides in sorted(found.items())}


def _find(model: nn.Module, name: str, prefix: str) -> Any:
    """The module of that name, counted from the model with a head or from the backbone."""
    for candidate in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        try:
            return model.get_submodule(candidate)
        except AttributeError:
            continue
    return None


def _is_tied(model: nn.Module, module: nn.Module) -> bool:
    return any(
        other is not module and isinstance(other, nn.Embedding) and other.weight is module.weight
        for other in model.modules()
    )
