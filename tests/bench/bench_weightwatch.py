"""Are WeightWatch's cosines in C worth it? Against numpy's matmul and torch's bmm, and the peak.

The peers compute what C does: products, lengths, and the least and largest cosine of all tokens.
The peak is that of fused multiply-add on this processor, measured in the same run.
"""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np
import torch

from layerguard.runtime import kernels
from layerguard.runtime.kernels import DirectionsKernel
from tests.bench.handles import extremes_handle
from tests.bench.harness import measure, report
from tests.kernel_cases import Array, states

_SHAPES = ((28, 1024), (32, 4096))
_EACH = 40  # directions of a layer: 20 of each of its two matrices
_TOKENS = 256
_GOALS = {"numpy": 1.3}
_GOAL_HALF, _GOAL_OF_PEAK = 2.2, 0.85

_PEAK = """
typedef float vector __attribute__((vector_size(64)));
float run(long turns) {
    vector sums[24], x, y;
    for (int k = 0; k < 16; k++) { x[k] = 0.5f; y[k] = 1.0f; }
    for (int i = 0; i < 24; i++) sums[i] = y * (float)i;
    while (turns--)
        _Pragma("GCC unroll 24") for (int i = 0; i < 24; i++) sums[i] = sums[i] * x + y;
    for (int i = 1; i < 24; i++) sums[0] += sums[i];
    return sums[0][0];
}
"""
_FLOPS_A_TURN = 24 * 16 * 2

Row = dict[str, Any]


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        row
        for depth, width in _SHAPES
        for heat in ("warm", "cold")
        for row in _one(depth, width, heat)
    ]
    rows += [row for depth, width in _SHAPES for row in _many(depth, width)]
    question = f"WeightWatch, {_EACH} directions a layer, level {kernels.level()}"
    report("weightwatch", f"{question}, CPU {one_thread.CPU}", rows)


def _directions(depth: int, width: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(depth * _EACH, width)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions, np.repeat(np.arange(1, depth + 1), _EACH)


def _numpy(directions: Array, h: Array) -> tuple[Array, Array]:
    """(L, each, width) by (L, tokens, width): the least and largest cosine, (L, each)."""
    lengths = np.sqrt(np.einsum("ltd,ltd->lt", h, h))
    cosine = np.matmul(directions, h.swapaxes(1, 2)) / lengths[:, None]
    return cosine.min(axis=2), cosine.max(axis=2)


def _torch(directions: Any, h: Any) -> tuple[Any, Any]:
    cosine = torch.bmm(directions, h.transpose(1, 2)) / h.norm(dim=2)[:, None]
    return cosine.amin(2), cosine.amax(2)


def _contenders(depth: int, width: int, tokens: int) -> dict[str, Callable[[], object]]:
    directions, layers = _directions(depth, width)
    h = states(width, tokens, depth)
    shaped, read = directions.reshape(depth, _EACH, width), h[1:]
    single = DirectionsKernel(directions, layers)
    half = DirectionsKernel(directions.astype(np.float16), layers)
    expected = np.stack(_numpy(shaped, read)).reshape(2, -1)
    np.testing.assert_allclose(single.extremes(h)[1], expected, atol=1e-5)
    return {
        "float32 directions": extremes_handle(single, h),
        "float16 directions": extremes_handle(half, h),
        "float32, from Python": partial(single.extremes, h),
        "numpy": partial(_numpy, shaped, read),
        "torch": partial(_torch, torch.from_numpy(shaped), torch.from_numpy(read)),
    }


def _one(depth: int, width: int, heat: str) -> Iterator[Row]:
    calls = _contenders(depth, width, 1)
    timed = measure(calls, rounds=41, cold=heat == "cold", inner=4)
    for name, seconds in timed.items():
        yield {
            "what": f"{depth} x {width}, one token, {heat}",
            "contender": name,
            "us": seconds * 1e6,
            "ratio": seconds / timed["float32 directions"],
            "goal": _GOALS.get(name),
        }
    yield {
        "what": f"{depth} x {width}, one token, {heat}",
        "contender": "numpy, times of float16 directions",
        "us": timed["numpy"] * 1e6,
        "ratio": timed["numpy"] / timed["float16 directions"],
        "goal": _GOAL_HALF,
    }


def _many(depth: int, width: int) -> Iterator[Row]:
    peak = _peak()
    flops = 2 * depth * _EACH * width * _TOKENS
    timed = measure(_contenders(depth, width, _TOKENS), rounds=11)
    for name, seconds in timed.items():
        yield {
            "what": f"{depth} x {width}, {_TOKENS} tokens",
            "contender": name,
            "us": seconds * 1e6,
            "ratio": seconds / timed["float32 directions"],
            "of peak": flops / seconds / peak,
            "goal of peak": _GOAL_OF_PEAK if name == "float32 directions" else None,
        }


def _peak() -> float:
    """Fused multiply-adds of this processor, two operations each, a second."""
    compiler = shutil.which("cc")
    assert compiler, "no C compiler: install gcc or clang"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = library.with_suffix(".c")
        source.write_text(_PEAK, encoding="utf-8")
        flags = ("-O3", "-march=native", "-ffp-contract=fast", "-mprefer-vector-width=512", "-w")
        command = [compiler, *flags, "-shared", "-fPIC", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        run = ctypes.CDLL(str(library)).run
    run.argtypes, run.restype = [ctypes.c_long], ctypes.c_float
    turns, best = 1_000_000, float("inf")
    for _ in range(10):
        start = time.perf_counter()
        run(turns)
        best = min(best, time.perf_counter() - start)
    return turns * _FLOPS_A_TURN / best


if __name__ == "__main__":
    main()
