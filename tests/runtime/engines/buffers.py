"""States as engines hold them."""

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
    """[L + 1, tokens, hidden], of a model as large as the toy bundle's."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STATES, tokens, WIDTH, generator=generator).to(dtype)


def singles(states: Any) -> Array:
    """The same values as one float32 array of numpy's own."""
    return np.stack([state.float().numpy() for state in states])


def addresses(arrays: Any) -> list[int]:
    """Where the first element of each array or tensor lies."""
    return [a.data_ptr() if isinstance(a, Tensor) else a.ctypes.data for a in arrays]


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """An error that says all of the words."""
    with pytest.raises(InputError) as caught:
        yield
    for word in words:
        assert word in str(caught.value)
