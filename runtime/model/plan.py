"""What a set of taps asks of the score graph, and what becomes of its answers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from layerguard.runtime.bundle.manifest import GraphCard, added_outputs
from layerguard.runtime.detectors.bound import POOLS
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import ADDED, Array, Directions, Group, Pooling, Probe, Tap

Layers = tuple[Array, ...]
"""L + 1 arrays [rows, hidden]; of extremes one array [rows, 4, 2, K], of windows and of added
lengths one array [rows, K]. float32."""

Owners = Sequence[bytes | None]
"""Of each row the roles of its tokens, where they are known."""

_Reduce = Callable[[Sequence[Array], Array, Owners], Layers]
"""Picked outputs, which tokens are valid, the rows' roles -> what the group's detectors read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which outputs to ask the graph for, and what each group makes of them.

    Attributes:
        outputs: names of the outputs to ask for.
        token_outputs: how many of them are [rows, tokens, hidden].
        groups: by group, the places of its outputs among ``outputs``, and how they are reduced.
    """

    outputs: Sequence[str]
    token_outputs: int
    groups: Mapping[Group, tuple[Sequence[int], _Reduce]]

    def reduce(self, values: Sequence[Array], valid: Array, roles: Owners) -> dict[Group, Layers]:
        """What becomes of one run's outputs; ``valid`` is bool [rows, tokens]."""
        return {
            group: reduce([values[place] for place in places], valid, roles)
            for group, (places, reduce) in self.groups.items()
        }


class Planner:
    """The outputs of a score graph, by what they are.

    Attributes:
        token_outputs: names of the outputs [rows, tokens, hidden].
        added_outputs: names of the outputs [rows, tokens], in the order of the values of ``ADDED``.
    """

    def __init__(self, graph: GraphCard, layers: int) -> None:
        self._file, self._depth = graph.file, layers
        self._names: dict[tuple[str, int], str] = {
            (card.kind, card.layer): card.name for card in graph.outputs
        }
        self.token_outputs = frozenset(
            card.name for card in graph.outputs if card.kind in ("state", "final_norm")
        )
        self.added_outputs = tuple(card.name for card in added_outputs(graph))

    def plan(self, taps: Collection[Tap]) -> Plan:
        """Which outputs the taps need.

        Raises:
            InputError: the graph does not give what a tap reads; how to export one that does.
        """
        found = {tap.group: self._group(tap) for tap in taps}
        outputs = list(dict.fromkeys(name for names, _ in found.values() for name in names))
        return Plan(
            outputs,
            len(self.token_outputs.intersection(outputs)),
            {
                group: (list(map(outputs.index, names)), reduce)
                for group, (names, reduce) in found.items()
            },
        )

    def _group(self, tap: Tap) -> tuple[list[str], _Reduce]:
        every = range(self._depth + 1)
        if tap.pooling == "extremes":
            if tap.directions is None:
                raise InputError("found a tap of extremes without directions; give those to watch")
            return self._states(tap, tap.directions.layers), partial(_extremes, tap.directions)
        if tap.pooling == "window":
            if tap.probe is None:
                raise InputError(
                    "found a tap of windows without a probe; give the one to read with"
                )
            return self._states(tap, tap.probe.layers), partial(_windows, tap.probe)
        if tap.pooling == "mlp_mean":
            blocks = self._all(tap, [("mlp_mean", layer) for layer in every[1:]])
            return [blocks[0], *blocks], _as_given  # there is no block 0, and nothing reads it
        if tap.pooling == ADDED:
            return self._added(), _largest
        if (tap.pooling, 0) not in self._names:
            return self._states(tap, every), partial(_pool, tap.pooling)
        names = self._all(tap, [(tap.pooling, layer) for layer in every])
        normed = self._names.get((f"final_norm_{tap.pooling}", self._depth))
        return self._ended(tap, names, normed), _as_given

    def _states(self, tap: Tap, layers: Sequence[int]) -> list[str]:
        """The outputs that give every token's state after those blocks."""
        names = self._all(tap, [("state", layer) for layer in layers])
        normed = self._names.get(("final_norm", self._depth))
        return self._ended(tap, names, normed if layers[-1] == self._depth else None)

    def _ended(self, tap: Tap, names: list[str], normed: str | None) -> list[str]:
        """The outputs, the last one after the final norm where tap and model have it so."""
        return [*names[:-1], normed] if tap.semantics == "hf" and normed else names

    def _added(self) -> list[str]:
        """The outputs that give what tuning adds, one for each matrix."""
        if not self.added_outputs:
            raise InputError(
                f"{self._file} has no outputs of {ADDED}, which a detector reads; export the model "
                "again with --adapter (or --base), and calibrate"
            )
        return list(self.added_outputs)

    def _all(self, tap: Tap, wanted: Sequence[tuple[str, int]]) -> list[str]:
        lacking = next((pair for pair in wanted if pair not in self._names), None)
        if lacking:
            raise InputError(
                f"{self._file} has no {lacking[0]} output of layer {lacking[1]}, which a detector "
                f"of {tap.pooling} reads; export the model again with "
                f"{'--mlp' if tap.pooling == 'mlp_mean' else '--mode states'}, and calibrate"
            )
        return [self._names[pair] for pair in wanted]


def _as_given(states: Sequence[Array], valid: Array, roles: Owners) -> Layers:  # noqa: ARG001
    """Pooled in the graph already."""
    return tuple(states)


def _largest(values: Sequence[Array], valid: Array, roles: Owners) -> Layers:  # noqa: ARG001
    """The largest over each row's tokens of K arrays [rows, tokens], as one array [rows, K]."""
    largest = [np.where(valid, value, -np.inf).max(axis=1) for value in values]
    return (np.stack(largest, axis=1, dtype=np.float32),)


def _pool(pooling: Pooling, states: Sequence[Array], valid: Array, roles: Owners) -> Layers:  # noqa: ARG001
    """Pool L + 1 arrays [rows, tokens, hidden] to L + 1 arrays [rows, hidden]."""
    pooled = [POOLS[pooling]([state[i] for state in states], row) for i, row in enumerate(valid)]
    return tuple(np.stack(layer) for layer in zip(*pooled, strict=True))


def _extremes(
    directions: Directions, states: Sequence[Array], valid: Array, roles: Owners
) -> Layers:
    """The extremes of each row's tokens; rows are padded on the right."""
    found = []
    for i, (count, whose) in enumerate(zip(valid.sum(axis=1), roles, strict=True)):
        of_row = {
            layer: state[i, :count] for layer, state in zip(directions.layers, states, strict=True)
        }
        owners = None if whose is None else np.frombuffer(whose, np.uint8)
        found.append(directions.extremes(of_row, roles=owners))
    return (np.stack(found),)


def _windows(probe: Probe, states: Sequence[Array], valid: Array, roles: Owners) -> Layers:  # noqa: ARG001
    """The best window of each row's tokens; rows are padded on the right."""
    found = []
    for i, count in enumerate(valid.sum(axis=1)):
        of_row = {
            layer: state[i, :count] for layer, state in zip(probe.layers, states, strict=True)
        }
        found.append(probe.windows(of_row))
    return (np.stack(found),)
