"""Is the fused LCF kernel worth its C? Against numpy, torch, ONNX Runtime operators and numba.

The kernel is timed through one handle call, its peers from Python on states that are already one
array. End to end starts from separate tensors, as an engine gives them, with all our checks.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np
import torch

from layerguard.runtime import kernels
from tests.bench import lcf_peers as peers
from tests.bench.handles import lcf_handle
from tests.bench.harness import measure, report
from tests.kernel_cases import lcf_model, states

_SHAPES = ((28, 1024), (32, 4096))
_BATCHES = (1, 32)
_GOALS = {
    "straightforward numpy": 4.0,
    "best numpy": 2.2,
    "torch eager": 4.5,
    "ONNX Runtime operators": 5.0,
    "numba fastmath": 1.0,
}
_BATCH_GOALS = {"warm": 7.0, "cold": 4.0}
_END_GOALS = {"warm": 4.0, "cold": 3.0}
_BANDWIDTH_GOALS = {"warm": 0.70, "cold": 0.50}
_OURS = "LayerGuard"

Row = dict[str, Any]


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        row
        for depth, width in _SHAPES
        for batch in _BATCHES
        for heat in ("warm", "cold")
        for row in _compare(depth, width, batch, heat)
    ]
    report("lcf_kernel", f"LCF kernel, level {kernels.level()}, CPU {one_thread.CPU}", rows)


def _compare(depth: int, width: int, batch: int, heat: str) -> Iterator[Row]:
    model, h = lcf_model(width, depth), states(width, batch, depth)
    kernel = model.kernel()
    layers = tuple(layer.copy() for layer in h)
    tensor, tensors = torch.from_numpy(h), [torch.from_numpy(layer) for layer in layers]
    numpy_score, torch_score = peers.straightforward_numpy(model), peers.torch_eager(model)
    scorers = {
        "straightforward numpy": partial(numpy_score, h),
        "best numpy": partial(peers.best_numpy(model, batch), h),
        "torch eager": partial(torch_score, tensor),
        "ONNX Runtime operators": partial(peers.onnx_operators(model), h),
        "numba fastmath": partial(peers.numba_fastmath(model), h),
    }
    expected = kernel.score(layers)
    for name, scorer in scorers.items():
        np.testing.assert_allclose(scorer(), expected[0], rtol=1e-4, err_msg=name)

    what = f"{depth} x {width}, batch {batch}, {heat}"
    handle = lcf_handle(kernel, h)
    flat = np.ones(2 * model.mu.size + h.size, np.float32)
    read = partial(peers.sum_read, flat)
    timed = _measure({_OURS: handle, **scorers, "sum of the same bytes": read}, batch, heat)
    read_time = timed.pop("sum of the same bytes")
    goals = _GOALS if batch == 1 else {"straightforward numpy": _BATCH_GOALS[heat]}
    yield from _rows(f"kernel, {what}", timed, goals)
    yield {
        "what": f"kernel, {what}",
        "contender": "share of a sum's read bandwidth",
        "us": read_time * 1e6,
        "ratio": read_time / timed[_OURS],
        "goal": _BANDWIDTH_GOALS[heat],
        "GB/s": flat.nbytes / timed[_OURS] / 1e9,
    }
    whole = {
        _OURS: partial(kernel.scorer.score, layers, 0),
        "np.stack + numpy": lambda: numpy_score(np.stack(layers)),
        "torch.stack + torch": lambda: torch_score(torch.stack(tensors)),
    }
    goal = (_END_GOALS if batch == 1 else _BATCH_GOALS)[heat]
    yield from _rows(
        f"{depth + 1} tensors, {what}", _measure(whole, batch, heat), {"np.stack + numpy": goal}
    )


def _measure(calls: Mapping[str, Callable[[], object]], batch: int, heat: str) -> dict[str, float]:
    if heat == "cold":
        return measure(calls, rounds=41, cold=True)
    return measure(calls, rounds=201, inner=16) if batch == 1 else measure(calls, inner=2)


def _rows(what: str, timed: Mapping[str, float], goals: Mapping[str, float]) -> Iterator[Row]:
    """One row a contender; ``ratio`` is how many times our time it takes, ``goal`` the least."""
    for name, seconds in timed.items():
        ratio = seconds / timed[_OURS]
        yield {
            "what": what,
            "contender": name,
            "us": seconds * 1e6,
            "ratio": ratio,
            "goal": goals.get(name),
        }


if __name__ == "__main__":
    main()
