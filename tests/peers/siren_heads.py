"""Random heads in the released format, of every kind that llm-siren 0.2.0 serves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from layerguard.runtime.types import Array
from tests.peers.siren_shapes import LAYERS, WIDTH

EARLY = ("content_early", "agent_early")
CONTENT_TOKENS, AGENT_TOKENS = 90, 701


def content_head(
    base_model: str,
    pooling: str = "residual_mean",
    blocks: tuple[int, ...] = tuple(range(LAYERS)),
    dropout: float = 0.3,
    seed: int = 0,
    width: int = WIDTH,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """A SIREN head's configuration and tensors; its first block has no weight of its own."""
    rng = np.random.default_rng(seed)
    neurons = {block: rng.permutation(width)[: width // 2 + block] for block in blocks}
    inputs = sum(map(len, neurons.values()))
    widths, rates = [inputs, 24, 16, 2], [dropout, 0.0]
    places = [0, 3 if dropout else 2]
    places.append(places[1] + 2)
    tensors = {}
    for place, before, after in zip(places, widths, widths[1:], strict=False):
        weight = rng.normal(size=(after, before)) * before**-0.5
        tensors[f"network.{place}.weight"] = weight.astype(np.float32)
        tensors[f"network.{place}.bias"] = rng.normal(size=after).astype(np.float32) * 0.1
    config = {
        "base_model": {"model_id": base_model, "revision": None},
        "mlp": {
            "input_dim": inputs, "layer_dims": widths[1:-1], "dropout_rates": rates,
            "num_classes": 2,
        },
        "siren_module": {
            "pooling_type": pooling,
            "selected_layers": list(reversed(blocks)),
            "layer_weights": {str(block): 0.1 + 0.3 * block for block in blocks[1:]},
            "selected_neurons_dict": {
                f"layer{block}_{pooling}": found.tolist() for block, found in neurons.items()
            },
        },
        "inference": {"max_length": CONTENT_TOKENS, "default_threshold": 0.5},
    }  # fmt: skip
    return config, tensors


def agent_head(
    base_model: str,
    state: int,
    seed: int = 0,
    width: int = WIDTH,
    max_length: int = AGENT_TOKENS,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """An Agent-SIREN head's configuration and tensors."""
    rng = np.random.default_rng(seed)
    tensors = {
        "head.weight": (rng.normal(size=(1, width)) * 0.3).astype(np.float32),
        "head.bias": rng.normal(size=1).astype(np.float32) * np.float32(0.1),
    }
    config = {
        "task": "trajectory",
        "base_model": {"model_id": base_model, "revision": None},
        "siren_module": {
            "pooling_type": "last", "hidden_state_index": state, "early_exit_blocks": state,
        },
        "render": {"tools": "rich", "truncation": "head_tail"},
        "inference": {"max_length": max_length, "default_threshold": 0.5},
    }  # fmt: skip
    return config, tensors


def write_head(folder: Path, config: dict[str, Any], tensors: dict[str, Array]) -> Path:
    """The two files of a released head."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "siren_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "siren.safetensors")
    return folder


def write_heads(
    folder: Path,
    base_model: str,
    *,
    layers: int = LAYERS,
    width: int = WIDTH,
    agent_tokens: int = AGENT_TOKENS,
) -> dict[str, Path]:
    """A head of every kind for a backbone, by name; those of ``EARLY`` read its lower half."""
    blocks = tuple(range(layers))
    heads = {
        "content": content_head(base_model, blocks=blocks, width=width),
        "content_early": content_head(
            base_model, blocks=blocks[: layers // 2], dropout=0.0, seed=1, width=width
        ),
        "content_mlp": content_head(base_model, "mlp_mean", blocks, seed=2, width=width),
        "agent_early": agent_head(base_model, layers // 2, 3, width, agent_tokens),
        "agent_last": agent_head(base_model, layers, 4, width, agent_tokens),
    }
    return {name: write_head(folder / name, *head) for name, head in heads.items()}
