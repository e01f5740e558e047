"""Checkpoints and adapters of a few kilobytes, written without transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from layerguard.runtime.types import Array

BLOCKS, WIDTH, INNER = 3, 16, 24


def llama_weights(seed: int = 0) -> dict[str, Array]:
    """The matrices of a small Llama that write into the residual stream, and one that does not."""
    rng = np.random.default_rng(seed)
    shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH)}
    shapes["mlp.down_proj"] = (WIDTH, INNER)
    return {
        f"model.layers.{block}.{name}.weight": rng.normal(size=shape).astype(np.float32)
        for block in range(BLOCKS)
        for name, shape in shapes.items()
    }


def save_model(folder: Path, weights: Mapping[str, Array], model_type: str = "llama") -> Path:
    """A folder as written by save_pretrained."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    save_file({name: np.ascontiguousarray(w) for name, w in weights.items()},
              folder / "model.safetensors")  # fmt: skip
    return folder


def save_adapter(folder: Path, factors: Mapping[str, tuple[Array, Array]], **config: Any) -> Path:
    """A LoRA adapter in PEFT's format: A and B by module."""
    folder.mkdir()
    rank = next((len(a) for a, _ in factors.values()), 1)
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **config}))
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def factors(
    seed: int = 0, rank: int = 4, *, part: str = "mlp.down_proj"
) -> dict[str, tuple[Array, Array]]:
    """A and B for one part of every block."""
    rng = np.random.default_rng(seed)
    inputs = INNER if part == "mlp.down_proj" else WIDTH
    return {
        f"model.layers.{block}.{part}": (
            rng.normal(size=(rank, inputs)).astype(np.float32),
            rng.normal(size=(WIDTH, rank)).astype(np.float32),
        )
        for block in range(BLOCKS)
    }
