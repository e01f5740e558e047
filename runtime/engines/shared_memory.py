"""States that another process left in shared memory.

The engine's process makes a block, writes L + 1 states of one text and sends name, shape and dtype:

    block = shared_memory.SharedMemory(create=True, size=2 * (L + 1) * tokens * hidden)
    torch.frombuffer(block.buf, dtype=torch.bfloat16).view(L + 1, tokens, hidden).copy_(states)

The guard's process reads them where they are. A block must not be closed while arrays look into it:

    block = shared_memory.SharedMemory(name)
    verdict = guard.score_states(view(block.buf, (L + 1, tokens, hidden), "bfloat16"))
    block.close()

Nothing here keeps a writer from changing what is being read: send the message after the last byte,
and write again after the verdict. Layers may also lie in blocks of their own: one ``view`` each,
[tokens, hidden], as a list.

Before Python 3.13, whose ``SharedMemory`` takes ``track=False``, a process that was not started by
the block's maker destroys the block when it ends, though it only looked; there
``resource_tracker.unregister(block._name, "shared_memory")`` after opening it keeps it.

Source: Python's ``multiprocessing.shared_memory``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def view(buffer: Any, shape: Sequence[int], dtype: str, offset: int = 0) -> Array:
    """An array over the buffer, read-only, in C order; bfloat16 as its bits, uint16.

    Args:
        buffer: what has Python's buffer protocol, as ``SharedMemory.buf``; it may be longer.
        shape: [L + 1, tokens, hidden], or [tokens, hidden] of one layer.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        offset: bytes before the first element, a multiple of an element's.

    Raises:
        InputError: another dtype, sizes below 1, or a buffer that is too short.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype: found {dtype!r}; expected {', '.join(_DTYPES)}")
    if min(shape, default=0) < 1 or offset < 0:
        raise InputError(
            f"found shape {tuple(shape)} at {offset}; expected sizes of 1 or more, and no offset "
            "before the buffer"
        )
    needed = offset + math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    held = memoryview(buffer).nbytes
    if held < needed:
        raise InputError(f"buffer: found {held} bytes; expected {needed} for {tuple(shape)}")
    array: Array = np.ndarray(tuple(shape), _DTYPES[dtype], buffer, offset)
    array.flags.writeable = False
    return array
