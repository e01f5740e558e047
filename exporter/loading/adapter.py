"""LoRA adapters in PEFT's format, merged into the weights: W += scale * B A (arXiv 2106.09685).

peft itself is not needed. Whatever a plain merge would get wrong is refused; see
``runtime/checkpoints/lora.py``.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerguard.runtime.checkpoints.lora import CONFIG, WEIGHTS, Lora, paired, read_lora
from layerguard.runtime.errors import ExportError, InputError

__all__ = ["CONFIG", "WEIGHTS", "merge"]


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
    lora, factors = _read(folder)
    for name, (down, up) in factors.items():
        module = _find(model, name, prefix)
        change = lora.scale(len(down)) * (up @ down)
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
                f"adapter was trained on ({CONFIG} says {lora.base})"
            )
        if _is_tied(model, module):
            raise ExportError(
                f"adapter {folder.name} changes {name}, whose weight is the token embedding's as "
                "well; expected linear layers of their own. Train the adapter without that module"
            )
        with torch.no_grad():
            weight += change


def _read(folder: Path) -> tuple[Lora, dict[str, tuple[Tensor, Tensor]]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ExportError(
                f"{folder} has no {name}; expected an adapter as save_pretrained of peft writes it "
                f"({CONFIG} and {WEIGHTS})"
            )
    try:
        return read_lora(folder), _factors(folder)
    except InputError as error:
        raise ExportError(str(error)) from error


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """By module name: A [rank, in] and B [out, rank], float32."""
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"adapter {folder.name}: {WEIGHTS} cannot be read ({error}); copy it again"
        ) from error
    pairs = paired(folder, tensors)
    return {
        name: (down.to(torch.float32), up.to(torch.float32)) for name, (down, up) in pairs.items()
    }


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
