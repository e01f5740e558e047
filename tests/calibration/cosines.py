"""Extremes with known properties, and matching directions."""

import numpy as np

from layerguard.runtime.types import ROLES, Array

USER, ASSISTANT = ROLES.index("user"), ROLES.index("assistant")


def directions(k: int = 6, width: int = 8, seed: int = 0) -> dict[str, Array]:
    """Orthonormal directions of decaying strength, half of them in each of two states."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0][:k]
    return {
        "directions": vectors.astype(np.float32),
        "layers": np.repeat([1, 2], [k // 2, k - k // 2]).astype(np.int32),
        "parts": np.zeros(k, np.uint8),
        "ranks": np.arange(k, dtype=np.int32),
        "singular_values": np.geomspace(2, 0.2, k).astype(np.float32),
    }


def clean_extremes(
    n: int, seed: int, k: int = 6, roles: tuple[int, ...] = (USER, ASSISTANT)
) -> Array:
    """Exchangeable rows; directions differ in location and spread, and some rows are outliers."""
    rng = np.random.default_rng(seed)
    extremes = np.empty((n, len(ROLES), 2, k), np.float32)
    extremes[:, :, 0], extremes[:, :, 1] = np.inf, -np.inf
    spread = np.geomspace(0.01, 0.05, k)
    for role in roles:
        rare = 1 + 2 * (rng.random((n, 1)) < 0.02)
        extremes[:, role, 0] = -0.2 - rare * spread * rng.exponential(size=(n, k))
        extremes[:, role, 1] = 0.2 + rare * spread * rng.exponential(size=(n, k))
    return extremes
