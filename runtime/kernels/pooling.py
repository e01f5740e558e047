"""Pooling over the tokens of one text; the package documents the format of states."""

from typing import Any

import numpy as np

from layerguard.runtime._kernels import lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.call import Layers, Singles, check, in_place
from layerguard.runtime.types import Array


def pool_mean(layers: Layers, mask: Array | None = None) -> Singles:
    """Mean over the unmasked tokens, for every layer of one text.

    Args:
        layers: states, each (tokens, width); see the package.
        mask: bool or integer (tokens,), zero where a token is ignored; None: no token is.

    Returns:
        float32 (layers, width).

    Raises:
        InputError: wrong shape, dtype or layout, or all tokens are masked.
    """
    return _pool(layers, mask, mean=True)


def pool_last(layers: Layers, mask: Array | None = None) -> Singles:
    """The last unmasked token, for every layer of one text; see ``pool_mean``."""
    return _pool(layers, mask, mean=False)


def _pool(layers: Layers, mask: Array | None, *, mean: bool) -> Singles:
    mask_bytes = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
    mask_id = 0 if mask_bytes is None else id(mask_bytes)

    def attempt(arrays: tuple[Any, ...]) -> Singles | None:
        """The pooled states, or None if the C core cannot read the arrays in place."""
        shape = getattr(arrays[0], "shape", ())
        pooled = np.empty((len(arrays), *shape[1:]), np.float32)
        workspace = np.empty(shape[1:]) if mean else None
        workspace_id = 0 if workspace is None else id(workspace)
        status = lib.lg_pool_arrays(id(arrays), mask_id, id(pooled), workspace_id)
        if status == lib.LG_NOT_PLAIN:
            return None
        if mask_bytes is not None and mask_bytes.shape != shape[:1]:
            raise InputError(
                f"mask: found shape {mask_bytes.shape}, expected {shape[:1]}, one entry for each "
                "token of the states"
            )
        check(status, "pooling")
        return pooled

    arrays = tuple(layers)
    if not arrays:
        raise InputError("found 0 states, expected at least one: pass the states to pool")
    return in_place(attempt, arrays)
