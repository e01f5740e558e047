"""What does one call cost before any mathematics? From Python, through one struct pointer.

A call with no rows does everything but arithmetic: checks, choice of level, floating-point
environment. A call from separate arrays adds asking each for its address, dtype and shape.
"""

from functools import partial

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from tests.bench.handles import lcf_handle
from tests.bench.harness import measure, report
from tests.kernel_cases import lcf_model, states

_DEPTH, _WIDTH = 28, 1024
_GOAL_US = 0.15


def main() -> None:
    kernel = lcf_model(_WIDTH, _DEPTH).kernel()
    h = states(_WIDTH, 1, _DEPTH)
    one, layers = h[0], tuple(layer[:0] for layer in h)
    calls = {
        "an empty Python function": lambda: None,
        "C function of one pointer": partial(lib.lg_level, ffi.new("char const **")),
        f"handle call, {_DEPTH + 1} layers, no rows": lcf_handle(kernel, h[:, :0]),
        f"score of {_DEPTH + 1} arrays, no rows": partial(kernel.scorer.score, layers, 0),
        "ffi.from_buffer of one array": partial(ffi.from_buffer, "float[]", one),
        "array.ctypes.data of one array": lambda: one.ctypes.data,
        f"np.stack of {_DEPTH + 1} arrays": partial(np.stack, tuple(h)),
    }
    rows = [
        {"call": name, "us": seconds * 1e6, "goal": _GOAL_US if name.startswith("handle") else None}
        for name, seconds in measure(calls, rounds=201, inner=200).items()
    ]
    report("handle_call", f"Overhead of a call, CPU {one_thread.CPU}", rows)


if __name__ == "__main__":
    main()
