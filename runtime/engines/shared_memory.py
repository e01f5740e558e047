"""States that another process wrote to shared memory.

The engine's process creates a block, writes the L + 1 states of one text, and sends the block's
name, shape and dtype:

    block = shared_memory.SharedMemory(create=True, size=2 * (L + 1) * tokens * hidden)
    torch.frombuffer(block.buf, dtype=torch.bfloat16).view(L + 1, tokens, hidden).copy_(states)

The guard's process reads the states in place. Do not close a block while arrays refer to it:

    block = shared_memory.SharedMemory(name)
    verdict = guard.score_states(view(block.buf, (L + 1, tokens, hidden), "bfloat16"))
    block.close()

There is no locking: the engine must send the message after the last byte is written, and must not
write again before the verdict. Layers may also have one block each: pass a list with one ``view``,
[tokens, hidden], per layer.

Before Python 3.13, a reading process that was not started by the block's creator destroys the block
when it exits. To prevent this, call ``resource_tracker.unregister(block._name, "shared_memory")``
after opening the block. From 3.13 on, open it with ``track=False`` instead.

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
    """A read-only array over the buffer, in C order. bfloat16 is returned as its bits, uint16.

    Args:
        buffer: an object with Python's buffer protocol, such as ``SharedMemory.buf``. It may be
            longer than the array.
        shape: [L + 1, tokens, hidden], or [tokens, hidden] of one layer.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        offset: bytes before the first element, a multiple of the element size.

    Raises:
        InputError: the dtype is unknown, a size is below 1, or the buffer is too short.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype: found {dtype!r}; expected {', '.join(_DTYPES)}")
    if min(shape, default=0) < 1 or offset < 0:
        raise InputError(
            f"found shape {tuple(shape)} at offset {offset}; expected sizes of 1 or more and an "
            "offset of 0 or more"
        )
    needed = offset + math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    held = memoryview(buffer).nbytes
    if held < needed:
        raise InputError(f"buffer: found {held} bytes; expected {needed} for {tuple(shape)}")
    array: Array = np.ndarray(tuple(shape), _DTYPES[dtype], buffer, offset)
    array.flags.writeable = False
    return array
