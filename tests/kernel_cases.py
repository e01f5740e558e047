"""Seeded models and states for the kernel suites, with the widths where lanes and blocks end."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from layerguard.runtime import kernels
from layerguard.runtime.errors import MachineError
from tests.scorers import LcfKernel, SirenKernel

Array = npt.NDArray[Any]

WIDTHS = (1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 97, 384, 1024)
DEPTH = 5


@dataclass(frozen=True)
class LcfModel:
    """Parameters of LCF, as ``fit`` returns them."""

    mu: Array
    sigma: Array
    score_mean: Array
    score_scale: Array
    centre: Array
    precision: Array

    def kernel(self) -> LcfKernel:
        """The kernel bound to these parameters."""
        return LcfKernel(**vars(self))


def lcf_model(width: int, depth: int = DEPTH, seed: int = 0) -> LcfModel:
    """A model whose lengths, z and scores are of ordinary size."""
    rng = np.random.default_rng([seed, width, depth])
    root = rng.normal(size=(depth, depth)) / np.sqrt(depth)
    return LcfModel(
        mu=rng.normal(size=(depth, width)).astype(np.float32),
        sigma=rng.uniform(0.2, 3.0, (depth, width)).astype(np.float32),
        score_mean=rng.normal(np.sqrt(width), 1.0, depth),
        score_scale=rng.uniform(0.5, 2.0, depth),
        centre=rng.normal(size=depth) / 10,
        precision=root @ root.T + 0.1 * np.eye(depth),
    )


@dataclass(frozen=True)
class SirenModel:
    """Parameters of SIREN, as ``fit`` returns them."""

    layers: Array
    neuron_offsets: Array
    neurons: Array
    alpha: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def kernel(self) -> SirenKernel:
        """The kernel bound to these parameters."""
        return SirenKernel(**vars(self))

    def chosen(self) -> list[Array]:
        """The neurons of each layer that is read."""
        return np.split(self.neurons, self.neuron_offsets[1:-1])


def siren_model(width: int, hidden: tuple[int, ...] = (33, 6), seed: int = 0) -> SirenModel:
    """Reads every second neuron of three layers in random order, none of one, one of another."""
    rng = np.random.default_rng([seed, width, *hidden])
    chosen = [rng.permutation(width)[: (width + 1) // 2] for _ in range(3)]
    chosen += [np.empty(0, np.int64), np.array([width - 1])]
    neurons = np.concatenate(chosen)
    sizes = (len(neurons), *hidden, 2)
    return SirenModel(
        layers=np.array([1, 2, 4, 3, 5], np.int32),
        neuron_offsets=np.cumsum([0, *map(len, chosen)]).astype(np.int32),
        neurons=neurons.astype(np.int32),
        alpha=rng.uniform(0.1, 1.0, len(chosen)).astype(np.float32),
        weights=tuple(
            (rng.normal(size=(after, before)) / np.sqrt(before)).astype(np.float32)
            for before, after in pairwise(sizes)
        ),
        biases=tuple(rng.normal(size=after).astype(np.float32) for after in sizes[1:]),
    )


def watched(width: int, seed: int = 0) -> tuple[Array, Array]:
    """Unit directions float32 (K, width) and their states: one of 1, five of 3, fifty of 5."""
    rng = np.random.default_rng([seed, width])
    layers = np.repeat([1, 3, 5], [1, 5, 50])
    directions = rng.normal(size=(len(layers), width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions.astype(np.float32), layers


def states(width: int, rows: int, depth: int = DEPTH, seed: int = 1) -> Array:
    """float32 (depth + 1, rows, width)."""
    rng = np.random.default_rng([seed, width, rows, depth])
    return rng.normal(size=(depth + 1, rows, width)).astype(np.float32)


def levels() -> list[str]:
    """The levels that this processor runs."""

    def runs(name: str) -> bool:
        try:
            kernels.set_level(name)
        except MachineError:
            return False
        return True

    try:
        return [n for n in ("x86-64", "x86-64-v3", "x86-64-v4", "portable") if runs(n)]
    finally:
        kernels.set_level(None)


def _lcf(width: int) -> Callable[[Any], Array]:
    kernel = lcf_model(width).kernel()
    return lambda layers: np.column_stack(kernel.score(layers))


def _siren(width: int) -> Callable[[Any], Array]:
    kernel = siren_model(width).kernel()
    return lambda layers: kernel.score(layers)[:, None]


SCORERS: dict[str, Callable[[int], Callable[[Any], Array]]] = {"lcf": _lcf, "siren": _siren}
"""For each scoring kernel: width -> (layers -> float64 (rows, outputs))."""
