"""The stages of a calibration, from recorded states to a frozen bundle.

    recorded states -> FittedParameters -> FittedDetector -> GuardThresholds -> a frozen bundle

``states.collect`` records states. A detector's package fits ``FittedParameters`` to them,
``guard.fit_detectors`` adds the rows they were fitted on, ``thresholds.guard_thresholds`` sets the
thresholds of all detectors together, and ``guard.freeze`` writes the results into the bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerguard.calibration.thresholds.threshold import Threshold
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Tap


@dataclass(frozen=True, slots=True, eq=False)
class FittedParameters:
    """The parameters of one detector, and the scores from which thresholds are taken.

    Attributes:
        params: the detector's own parameters, without a threshold.
        held_out: float64 [n], the held-out score of each row, in the order of the rows.
        settings: settings of the fit for the manifest, as plain JSON types.
        published: the fixed threshold of the published rule, if the mode uses it. If it is None,
            the threshold is taken from held-out scores.
    """

    params: dict[str, Array]
    held_out: Array
    settings: dict[str, Any]
    published: Threshold | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many of the clean texts of a source a detector flags that has not seen the source."""

    texts: int
    flagged: int


@dataclass(frozen=True, slots=True, eq=False)
class FittedDetector:
    """One detector that was fitted to rows of text, or imported.

    Attributes:
        name: name in the registry.
        method: how its threshold is set.
        params: its parameters; with a threshold if ``fit`` of its package returned them.
        rows: the rows it was fitted on.
        seed: random seed.
        settings: settings of the fit, as plain JSON types.
        threshold: its own threshold, if the guard does not set one.
        clean_scores: held-out scores of clean texts by ``prompt_group``; the thresholds of the
            guard are taken from these.
        harmful_scores: scores of the texts of label 1 by ``prompt_group``; held out if the detector
            was fitted to them.
        left_out: false alarms on each source that a refit has not seen.
        not_left_out: why there is no such refit for other sources.
        reads: its tap, if it differs from the tap of its kind.
    """

    name: str
    method: str
    params: Mapping[str, Array]
    rows: Sequence[Row]
    seed: int
    settings: Mapping[str, Any]
    threshold: Threshold | None = None
    clean_scores: Mapping[str, float] = field(default_factory=dict)
    harmful_scores: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    not_left_out: Mapping[str, str] = field(default_factory=dict)
    reads: Tap | None = None

    @property
    def tap(self) -> Tap:
        """The states that it reads."""
        return self.reads or REGISTRY[self.name].tap

    @property
    def frozen_params(self) -> dict[str, Array]:
        """The parameters with the detector's own threshold, if it has one."""
        own = self.threshold.arrays() if self.threshold else {}
        return {**self.params, **own}
