"""Is SIREN's head in C worth it? Chosen neurons and network in float32 against numpy with BLAS.

The peer's network alone, on features that were already gathered, is shown beside: C gathers too.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np

from layerguard.runtime import kernels
from tests.bench.handles import siren_handle
from tests.bench.harness import measure, report
from tests.kernel_cases import Array, SirenModel, states

_DEPTH, _WIDTH = 28, 1024
_SHARES = (0.2, 0.6)  # of the neurons of each layer that are chosen
_HIDDEN = ((64,), (256, 64))
_GOALS = {"warm": 1.2, "cold": 1.5}


def main() -> None:
    rows = [
        row
        for share in _SHARES
        for hidden in _HIDDEN
        for batch in (1, 32)
        for heat in ("warm", "cold")
        for row in _compare(share, hidden, batch, heat)
    ]
    question = f"SIREN head, {_DEPTH} x {_WIDTH}, level {kernels.level()}, CPU {one_thread.CPU}"
    report("siren_head", question, rows)


def _model(share: float, hidden: tuple[int, ...]) -> SirenModel:
    rng = np.random.default_rng(0)
    each = int(share * _WIDTH)
    sizes = [_DEPTH * each, *hidden, 2]
    return SirenModel(
        layers=np.arange(1, _DEPTH + 1),
        neuron_offsets=np.arange(0, _DEPTH * each + 1, each),
        neurons=np.concatenate([rng.permutation(_WIDTH)[:each] for _ in range(_DEPTH)]),
        alpha=rng.uniform(0.1, 1, _DEPTH).astype(np.float32),
        weights=tuple(
            rng.normal(0, before**-0.5, (after, before)).astype(np.float32)
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)  # noqa: RUF007
        ),
        biases=tuple(rng.normal(size=after).astype(np.float32) for after in sizes[1:]),
    )


def _gather(model: SirenModel, h: Array) -> Array:
    parts = zip(model.layers, model.chosen(), model.alpha, strict=True)
    return np.concatenate([alpha * h[layer][:, chosen] for layer, chosen, alpha in parts], axis=1)


def _network(model: SirenModel, feature: Array) -> Array:
    value = feature
    for weight, bias in zip(model.weights[:-1], model.biases[:-1], strict=True):
        value = np.maximum(value @ weight.T + bias, 0)
    logits = value @ model.weights[-1].T + model.biases[-1]
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential[:, 1] / exponential.sum(axis=1)


def _compare(
    share: float, hidden: tuple[int, ...], batch: int, heat: str
) -> Iterator[dict[str, Any]]:
    model, h = _model(share, hidden), states(_WIDTH, batch, _DEPTH)
    kernel = model.kernel()
    feature = _gather(model, h)
    np.testing.assert_allclose(kernel.score(h), _network(model, feature), rtol=1e-4)
    calls = {
        "LayerGuard": siren_handle(kernel, h),
        "numpy with BLAS": lambda: _network(model, _gather(model, h)),
        "numpy's network alone": partial(_network, model, feature),
    }
    timed = measure(calls, rounds=41, cold=heat == "cold", inner=8 if batch == 1 else 2)
    goals = {"numpy with BLAS": _GOALS[heat]} if batch == 1 else {}
    for name, seconds in timed.items():
        yield {
            "what": f"{feature.shape[1]} features, hidden {hidden}, batch {batch}, {heat}",
            "contender": name,
            "us": seconds * 1e6,
            "ratio": seconds / timed["LayerGuard"],
            "goal": goals.get(name),
        }


if __name__ == "__main__":
    main()
