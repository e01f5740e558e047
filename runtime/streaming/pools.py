"""Running pools over the tokens of a growing sequence: last token, mean, extremes, and others."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Protocol

import numpy as np

from layerguard.runtime.kernels import RunningMean
from layerguard.runtime.streaming.decode_graph import Step
from layerguard.runtime.types import ADDED, Array, Directions, Group, Pooling, Probe, Tap


class Pool(Protocol):
    """One pooling of the tokens read so far."""

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        """Add tokens: what ``Step.read`` gives of them, and their roles."""

    def pooled(self) -> Sequence[Array] | Array:
        """One row in the form that a detector's ``score_pooled`` takes."""

    def copy(self) -> "Pool":
        """An independent copy."""


class _Last:
    """The last token's states."""

    def __init__(self) -> None:
        self._layers: tuple[Array, ...] = ()

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        del roles
        # A copy, because a view would keep the states of the whole run in memory.
        self._layers = tuple([layer[-1:].copy() for layer in layers])

    def pooled(self) -> tuple[Array, ...]:
        return self._layers

    def copy(self) -> "_Last":
        other = _Last()
        other._layers = self._layers
        return other


class _Mean:
    """The mean over tokens."""

    def __init__(self) -> None:
        self._running: RunningMean | None = None

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        del roles
        if self._running is None:
            self._running = RunningMean(len(layers), layers[0].shape[1])
        self._running.add(layers)

    def pooled(self) -> Array:
        assert self._running is not None, "no token was read"
        return self._running.mean[:, None]

    def copy(self) -> "_Mean":
        other = _Mean()
        other._running = self._running and self._running.copy()
        return other


class _Extremes:
    """The smallest and largest cosine to each direction, for each role."""

    def __init__(self, directions: Directions) -> None:
        self._directions = directions
        self._extremes: Array | None = None

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        watched = {layer: layers[layer] for layer in self._directions.layers}
        extremes = self._directions.extremes(watched, roles=roles)
        if self._extremes is not None:  # both functions propagate NaN
            extremes[:, 0] = np.minimum(extremes[:, 0], self._extremes[:, 0])
            extremes[:, 1] = np.maximum(extremes[:, 1], self._extremes[:, 1])
        self._extremes = extremes

    def pooled(self) -> tuple[Array, ...]:
        assert self._extremes is not None, "no token was read"
        return (self._extremes[None],)

    def copy(self) -> "_Extremes":
        return copy(self)  # shallow: ``add`` creates a new array


class _Window:
    """The window of tokens with the largest mean logit."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._windows: Array | None = None

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        del roles
        watched = {layer: layers[layer] for layer in self._probe.layers}
        into = None if self._windows is None else self._windows.copy()
        self._windows = self._probe.windows(watched, into=into)

    def pooled(self) -> tuple[Array, ...]:
        assert self._windows is not None, "no token was read"
        return (self._windows[None],)

    def copy(self) -> "_Window":
        return copy(self)  # shallow: ``add`` creates a new array


class _Largest:
    """The largest value of each column."""

    def __init__(self) -> None:
        self._largest: Array | None = None

    def add(self, layers: Sequence[Array], roles: Array) -> None:
        del roles
        (values,) = layers
        rows = [values] if self._largest is None else [values, self._largest[None]]
        self._largest = np.concatenate(rows).max(axis=0)  # keeps NaN

    def pooled(self) -> tuple[Array, ...]:
        assert self._largest is not None, "no token was read"
        return (self._largest[None],)

    def copy(self) -> "_Largest":
        return copy(self)  # shallow: ``add`` creates a new array


def _window(tap: Tap) -> _Window:
    assert tap.probe is not None, "a tap of windows has a probe"
    return _Window(tap.probe)


def _extremes(tap: Tap) -> _Extremes:
    assert tap.directions is not None, "a tap of extremes has directions"
    return _Extremes(tap.directions)


KINDS: Mapping[Pooling, Callable[[Tap], Pool]] = {
    "last": lambda _: _Last(),
    "mean": lambda _: _Mean(),
    "extremes": _extremes,
    "window": _window,
    ADDED: lambda _: _Largest(),
}
"""The poolings that can be updated with new tokens."""


class Pools:
    """The pools of one sequence, one for each distinct pooling of the taps."""

    def __init__(self, taps: Collection[Tap]) -> None:
        self._pools: dict[Group, Pool] = {tap.group: KINDS[tap.pooling](tap) for tap in taps}

    def add(self, step: Step, tokens: slice, roles: Array) -> None:
        """Add the tokens in the slice ``tokens`` of one run of the decode graph."""
        for (pooling, semantics, _), pool in self._pools.items():
            pool.add([layer[tokens] for layer in step.read(pooling, semantics)], roles)

    def pooled(self, tap: Tap) -> Sequence[Array] | Array:
        """One row for the detector of this tap."""
        return self._pools[tap.group].pooled()

    def copy(self) -> "Pools":
        """An independent copy."""
        other = Pools(())
        other._pools = {group: pool.copy() for group, pool in self._pools.items()}
        return other
