"""States that another process wrote to shared memory."""

import subprocess
import sys
from multiprocessing import shared_memory

import numpy as np
import pytest
import torch

from layerguard.runtime import Guard
from layerguard.runtime.engines.shared_memory import view
from tests.runtime.engines.buffers import addresses, refused, singles, tensors

SHAPE = (4, 5, 16)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WRITER = """
import sys
from multiprocessing import resource_tracker, shared_memory

block = shared_memory.SharedMemory(sys.argv[1])
resource_tracker.unregister(block._name, "shared_memory")  # it is not this process's to destroy
block.buf[:] = sys.stdin.buffer.read()
block.close()
"""


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("dtype", DTYPES)
def test_another_process_s_states_are_read_in_place(guard: Guard, dtype: str) -> None:
    """States written by another process are scored from the same memory."""
    states = tensors(dtype=DTYPES[dtype])
    data = states.contiguous().view(torch.uint8).numpy().tobytes()
    block = shared_memory.SharedMemory(create=True, size=len(data))
    try:
        write = [sys.executable, "-c", WRITER, block.name]
        subprocess.run(write, input=data, check=True)
        found = view(block.buf[: len(data)], SHAPE, dtype)
        assert addresses([found]) == addresses([np.frombuffer(block.buf, np.uint8)])
        assert not found.flags.writeable
        expected = guard.score_states(singles(states)).readings
        assert guard.score_states(found).readings == expected
        del found
        block.close()
    finally:
        block.unlink()


def test_layers_may_lie_apart(guard: Guard) -> None:
    """Each layer may have its own offset."""
    states = singles(tensors())
    buffer = b"head" + states.tobytes()
    layers = [view(buffer, SHAPE[1:], "float32", 4 + i * states[0].nbytes) for i in range(4)]
    assert guard.score_states(layers).readings == guard.score_states(states).readings


@pytest.mark.parametrize(
    ("shape", "dtype", "offset", "words"),
    [
        (SHAPE, "float64", 0, "dtype: found 'float64'; expected float32, float16, bfloat16"),
        ((4, 0, 16), "float32", 0, "expected sizes of 1 or more"),
        ((), "float32", 0, "expected sizes of 1 or more"),
        (SHAPE, "float32", -4, "an offset of 0 or more"),
        ((5, 5, 16), "float32", 0, "buffer: found 1280 bytes; expected 1600"),
        (SHAPE, "float32", 4, "expected 1284"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], dtype: str, offset: int, words: str
) -> None:
    """Another dtype, impossible sizes and a block that is too short are refused."""
    with refused(words):
        view(bytes(1280), shape, dtype, offset)
