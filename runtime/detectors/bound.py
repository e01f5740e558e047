"""A detector bound to its frozen parameters: C computes, this module builds the readings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import VALID, Scorer, pool_last, pool_mean
from layerguard.runtime.types import (
    ADDED,
    Array,
    Directions,
    Evidence,
    Pooling,
    Probe,
    Reading,
    Tap,
)

States = Sequence[Array] | Array
"""States of one text: L + 1 arrays [tokens, hidden], or one array [L + 1, tokens, hidden];
float32, float16 or bfloat16."""

Params = Mapping[str, Array]
"""Frozen parameters by name, as ``fit`` returns them."""

Measure = Callable[[int], str]
"""Maps the ``place`` of an ``lg_evidence`` to the text of ``Evidence.measure``."""

EVIDENCE = 5
"""Maximum number of entries of evidence of a reading."""

POOLS: Mapping[Pooling, Callable[[States, Array | None], Array]] = {
    "last": pool_last,
    "mean": pool_mean,
}
"""Pooling functions: states of one text and its mask -> float32 [L + 1, hidden]."""

_STATES = "pooled states"
_ROWS = {"extremes": "extremes", "window": "windows", ADDED: "added lengths"}
_IN_GRAPH = {
    "mlp_mean": "the blocks' feed-forward outputs",
    ADDED: "the lengths that tuning adds to outputs within the blocks",
}
"""What the poolings read that only the graph computes."""


class BoundDetector:
    """A detector bound to its frozen parameters; thread-safe.

    Attributes:
        name: name of the detector.
        tap: what it reads.
    """

    def __init__(
        self,
        name: str,
        params: Params,
        tap: Tap,
        measure: Callable[[Params], Measure],
        directions: Callable[[Params], Directions] | None = None,
        probe: Callable[[Params], Probe] | None = None,
        *,
        reads_added: bool = False,
    ) -> None:
        """Bind the parameters.

        Args:
            name: name of the detector.
            params: its frozen parameters.
            tap: what it reads.
            measure: params -> the texts of its evidence.
            directions: params -> watched directions, for a detector that reads extremes.
            probe: params -> probe, for a detector that reads windows.
            reads_added: whether it reads the lengths that tuning adds (``ADDED``).

        Raises:
            InputError: parameters are missing or invalid; every fault is listed.
        """
        found = {
            "extremes": directions is not None,
            "window": probe is not None,
            ADDED: reads_added,
        }
        if any(reads != (tap.pooling == pooling) for pooling, reads in found.items()):
            expected = next((_ROWS[pooling] for pooling, reads in found.items() if reads), _STATES)
            raise InputError(f"{name} reads {expected}; found a tap of pooling {tap.pooling}")
        self._params = params
        self._scorer = Scorer(name, params, extremes=directions is not None)
        self.name, self._measure = name, measure(params)
        self.tap = replace(
            tap,
            directions=directions(params) if directions else None,
            probe=probe(params) if probe else None,
        )

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, dict[str, Array], Tap]]:
        """What pickle keeps: the parameters, which the registry binds again."""
        return _bound_again, (self.name, dict(self._params), self.tap)

    def score(
        self, states: States, mask: Array | None = None, roles: Array | None = None
    ) -> Reading:
        """The reading of one text from the states of its tokens; see ``Detector.score``."""
        return self.score_pooled(self._pool(states, mask, roles))[0]

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row of pooled input; see ``Detector.score_pooled``."""
        return [
            Reading(
                detector=self.name,
                score=score,
                threshold=threshold,
                p_value=p_value,
                flagged=flagged != 0,
                evidence=tuple([Evidence(at, self._measure(i), v) for v, at, i in entries]),
                status="ok" if status == VALID else "invalid",
            )
            for (status, flagged, score, threshold, p_value, *_), entries in self._scorer.score(
                layers, EVIDENCE
            )
        ]

    def _pool(self, states: States, mask: Array | None, roles: Array | None) -> States:
        """Pool one text to a row as the tap requires."""
        directions, probe = self.tap.directions, self.tap.probe
        if probe is not None:
            windows = probe.windows(states, mask)
            if probe.place(windows)[1] == 0:
                raise self._no_token()
            return [windows[None]]
        if directions is None:
            if self.tap.pooling not in POOLS:
                raise InputError(
                    f"{self.name} reads {self.tap.pooling}, {_IN_GRAPH[self.tap.pooling]}, which "
                    "are not part of the states; check the text instead"
                )
            return POOLS[self.tap.pooling](states, mask)[:, None, :]
        extremes = directions.extremes(states, mask, roles)
        if np.isinf(extremes[:, 0, 0]).all():
            raise self._no_token()
        return [extremes[None]]

    def _no_token(self) -> InputError:
        return InputError(
            f"{self.name}: found no unmasked token; expected at least one: pass more tokens, or "
            "another mask"
        )


def _bound_again(name: str, params: Params, tap: Tap) -> object:
    from layerguard.runtime.detectors import REGISTRY  # noqa: PLC0415  it imports this module

    return REGISTRY[name].bind(params, tap)
