"""Merge LoRA adapters in PEFT's format into the weights: W += scale * B A (arXiv 2106.09685).

The peft package is not needed. Adapters that are not plain LoRA are refused; see
``runtime/checkpoints/lora.py``.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerguard.exporter.loading.changes import Change, adapter_change, in_order
from layerguard.runtime.checkpoints.lora import CONFIG, WEIGHTS, Lora, paired, read_lora
from layerguard.runtime.errors import ExportError, InputError

__all__ = ["CONFIG", "WEIGHTS", "merge"]


def merge(model: nn.Module, prefix: str, folder: Path) -> tuple[Change, ...]:
    """Add the products of an adapter's matrices to the weights of ``model``, in place.

    Each pair of matrices has its own rank. The scale is alpha / rank, or alpha / sqrt(rank) with
    ``use_rslora``.

    Args:
        model: float32, a language model or a bare backbone.
        prefix: name of the backbone inside a language model, for an adapter that was trained on the
            language model and is merged into the backbone, or vice versa.
        folder: has ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        The changes of matrices that write into the residual stream, by block and part.

    Raises:
        ExportError: the folder has no adapter, or one that is not plain LoRA or is for another
            model.
    """
    lora, factors = _read(folder)
    changes: list[Change | None] = []
    for name, (down, up) in factors.items():
        module = _find(model, name, prefix)
        scale = lora.scale(len(down))
        change = scale * (up @ down)
        if isinstance(module, Conv1D):  # GPT-2 stores its weights transposed
            change = change.T
        weight = None if module is None else module.weight
        if (
            not isinstance(module, nn.Linear | Conv1D)
            or weight is None
            or weight.shape != change.shape
        ):
            shape = list(weight.shape) if isinstance(weight, Tensor) else "no such weight"
            raise ExportError(
                f"adapter {folder.name} changes {name} by {list(change.shape)}; the model has "
                f"{shape}. Expected a linear layer of the same shape: export the model that the "
                f"adapter was trained on ({CONFIG} names {lora.base})"
            )
        if _is_tied(model, module):
            raise ExportError(
                f"adapter {folder.name} changes {name}, which shares its weight with the token "
                "embedding; expected weights that are not shared. Train the adapter without this "
                "module"
            )
        with torch.no_grad():
            weight += change
        changes.append(adapter_change(name, module, scale * up, down))
    return in_order(filter(None, changes))


def _read(folder: Path) -> tuple[Lora, dict[str, tuple[Tensor, Tensor]]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ExportError(
                f"{folder} has no {name}; expected an adapter that peft's save_pretrained wrote "
                f"({CONFIG} and {WEIGHTS})"
            )
    try:
        return read_lora(folder), _factors(folder)
    except InputError as error:
        raise ExportError(str(error)) from error


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices by module name: A [rank, in] and B [out, rank], float32."""
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
    """The module by its name in the language model or in the backbone; None if there is none."""
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
