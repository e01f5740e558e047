"""States in the forms in which engines hold them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array
from tests.tiny import LAYERS, WIDTH

STATES = LAYERS + 1


def tensors(tokens: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Tensors [L + 1, tokens, hidden] with the size of the toy bundle's model."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STATES, tokens, WIDTH, generator=generator).to(dtype)


def singles(states: Any) -> Array:
    """The same values as one float32 numpy array."""
    return np.stack([state.float().numpy() for state in states])


def addresses(arrays: Any) -> list[int]:
    """The address of the first element of each array or tensor."""
    return [a.data_ptr() if isinstance(a, Tensor) else a.ctypes.data for a in arrays]


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """The call fails, and the error contains all of the words."""
    with pytest.raises(InputError) as caught:
        yield
    for word in words:
        assert word in str(caught.value)
