"""What tuning adds to clean prompts, made up: values with known properties, and their matrices."""

import numpy as np

from layerguard.runtime.types import Array


def matrices(k: int = 6) -> tuple[Array, Array]:
    """Both matrices of each block, feed-forward output first: layers and parts."""
    return np.arange(k, dtype=np.int32) // 2 + 1, (np.arange(k) % 2).astype(np.uint8)


def clean_values(n: int, seed: int, k: int = 6) -> Array:
    """Exchangeable rows, float32 [n, k]; matrices differ in location and spread."""
    rng = np.random.default_rng(seed)
    spread = np.geomspace(0.1, 1, k)
    rows = np.linspace(-4, 1, k) + 0.3 * rng.normal(size=(n, 1)) + spread * rng.gumbel(size=(n, k))
    values: Array = rows.astype(np.float32)
    return values
