"""Pooling of one text's tokens in float64: mean, or last, of the tokens that the mask keeps."""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def mean(states: npt.ArrayLike, mask: npt.ArrayLike) -> Doubles:
    """(layers, width) of states (layers, tokens, width) and a mask (tokens,)."""
    return np.asarray(states, np.float64)[:, np.asarray(mask, bool)].mean(axis=1)


def last(states: npt.ArrayLike, mask: npt.ArrayLike) -> Doubles:
    """(layers, width) of states (layers, tokens, width) and a mask (tokens,)."""
    return np.asarray(states, np.float64)[:, np.flatnonzero(mask)[-1]]
