"""Pooling over the tokens of one text; see the package for what states are."""

from typing import Any

import numpy as np

from layerguard.runtime._kernels import lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.call import Layers, Singles, check, in_place
from layerguard.runtime.types import Array


def pool_mean(layers: Layers, mask: Array | None = None) -> Singles:
    """Mean over the tokens that ``mask`` keeps, of every layer of one text.

    Args:
        layers: states, each (tokens, width); see the module.
        mask: bool or integer (tokens,), zero where a token does not count; None counts all.

    Returns:
        float32 (layers, width).

    Raises:
        InputError: wrong shape, dtype or layout, or a mask that keeps nothing.
    """
    return _pool(layers, mask, mean=True)


def pool_last(layers: Layers, mask: Array | None = None) -> Singles:
    """The last token that ``mask`` keeps, of every layer of one text; see ``pool_mean``."""
    return _pool(layers, mask, mean=False)


def _pool(layers: Layers, mask: Array | None, *, mean: bool) -> Singles:
    kept = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
    mask_id = 0 if kept is None else id(kept)

    def attempt(arrays: tuple[Any, ...]) -> Singles | None:
        """The pooled states, or None if the arrays are not what the C core reads in place."""
        shape = getattr(arrays[0], "shape", ())
        pooled = np.empty((len(arrays), *shape[1:]), np.float32)
        workspace = np.empty(shape[1:]) if mean else None
        workspace_id = 0 if workspace is None else id(workspace)
        status = lib.lg_pool_arrays(id(arrays), mask_id, id(pooled), workspace_id)
        if status == lib.LG_NOT_PLAIN:
            return None
        if kept is not None and kept.shape != shape[:1]:
            raise InputError(
                f"mask: found shape {kept.shape}, expected {shape[:1]}, one entry for each token "
                "of the states"
            )
        check(status, "pooling")
        return pooled

    arrays = tuple(layers)
    if not arrays:
        raise InputError("found 0 states, expected at least one: give the states to be pooled")
    return in_place(attempt, arrays)
