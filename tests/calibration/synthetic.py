"""Small states with known properties, and rows for calibration."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.types import Array
from tests.tiny import WORDS

LAYERS, WIDTH = 3, 12


def clean_states(n: int, seed: int, layers: int = LAYERS, width: int = WIDTH) -> Array:
    """Exchangeable rows: random walks over layers, each row with a scale of its own."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(n, layers + 1, width)) * np.exp(0.1 * rng.normal(size=(n, 1, 1)))
    states: Array = np.cumsum(steps, axis=1).astype(np.float32)
    return states


def labelled_states(n: int, seed: int, shift: float = 2.0) -> tuple[Array, Array]:
    """Rows of which every third is harmful and shifted in a few dimensions of every layer."""
    states = clean_states(n, seed)
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    states[labels == 1, 1:, :3] += shift
    return states, labels


def sentences(n: int, seed: int) -> list[str]:
    """Different texts of the tiny tokenizer's words."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" ".join(rng.choice(WORDS[5:], size=rng.integers(3, 10)))] = None
    return list(found)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write rows as JSONL; a str is written as a raw line."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
