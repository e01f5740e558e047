"""Leave-one-source-out: a detector's false alarms on a source that it has not seen.

The detector is fitted again without the rows of the source, and without other rows of the same
texts. Its threshold is set on the held-out scores of the remaining clean texts, at the target of
the whole guard. Then the texts of the source are scored. All of this uses the recorded states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from layerguard.calibration.calibrator import Fit
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import MOST_SOURCES, Sources, source_of
from layerguard.calibration.stages import FittedParameters, LeftOut
from layerguard.calibration.states.blockwise import SelectedStates, States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.text_scores import largest, worst_windows
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.types import Array


@dataclass(slots=True)
class LeftOutSources:
    """The sources that were left out, and why others could not be."""

    measured: dict[str, LeftOut] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def leave_one_source_out(
    name: str,
    fit: Fit,
    recorded: RecordedStates[States],
    target_fpr: float,
    most: int = MOST_SOURCES,
) -> LeftOutSources:
    """Fit a detector again without each source of its rows.

    Args:
        name: name of the detector.
        fit: its prepared fit.
        recorded: the states of all its rows.
        target_fpr: share of the remaining clean texts that may be flagged.
        most: the most sources that are left out.
    """
    sources = Sources.of(recorded.rows, most)
    result = LeftOutSources(failed=dict(sources.not_measured))
    for source in sources.measured:
        texts = {prompt_group(row) for row in recorded.rows if source_of(row) == source}
        outside = np.array([prompt_group(row) not in texts for row in recorded.rows])
        if not outside.any():
            result.failed[source] = "no other rows are left to fit on"
            continue
        try:
            result.measured[source] = _left_out(name, fit, recorded, outside, target_fpr)
        except CalibrationError as error:
            result.failed[source] = f"the other rows do not suffice for a fit: {error}"
    return result


def _left_out(
    name: str, fit: Fit, recorded: RecordedStates[States], outside: Array, target_fpr: float
) -> LeftOut:
    rest = _only(recorded, outside)
    fitted = fit.fit(rest)
    threshold = _threshold(fitted, rest, target_fpr)
    source = _only(recorded, ~outside)
    scores = recorded_scores(name, fit, fitted.params, source.states)
    by_text = _clean_texts(source, scores)
    flagged = sum(not score <= threshold for score in by_text.values())
    return LeftOut(len(by_text), flagged)


def _threshold(
    fitted: FittedParameters, recorded: RecordedStates[States], target_fpr: float
) -> float:
    if fitted.published:
        return fitted.published.value
    by_text = _clean_texts(recorded, fitted.held_out)
    return conformal.threshold(np.array(list(by_text.values())), target_fpr)


def _clean_texts(recorded: RecordedStates[States], scores: Array) -> Mapping[str, float]:
    """The largest score of each text of label 0."""
    worst = worst_windows(scores, recorded.owner, len(recorded.rows)).tolist()
    scored = zip(recorded.rows, worst, strict=True)
    return largest((row, score) for row, score in scored if row.label != 1)


def _only(recorded: RecordedStates[States], chosen: Array) -> RecordedStates[States]:
    """Some of the rows; ``chosen`` is bool [rows]."""
    windows = chosen[recorded.owner]
    numbers = np.cumsum(chosen) - 1
    rows = tuple(row for row, keep in zip(recorded.rows, chosen, strict=True) if keep)
    states = SelectedStates(recorded.states, windows)
    return RecordedStates(rows, states, numbers[recorded.owner[windows]], ())


def recorded_scores(name: str, fit: Fit, params: Mapping[str, Array], states: States) -> Array:
    """The detector's score of every recorded window, float64 [windows]."""
    if fit.score is not None:
        return fit.score(params, states)
    # binding needs a threshold, on which scores do not depend
    bound = REGISTRY[name].bind({**params, **published_threshold(0.0).arrays()}, fit.tap)
    return _pooled_scores(bound, states)


def _pooled_scores(detector: Detector, states: States) -> Array:
    """The scores by the detector itself."""
    scores: list[float] = []
    for _, block in states.blocks():
        if detector.tap.pooling == "extremes":
            layers, rows, count = block.shape
            whole = np.ascontiguousarray(block.swapaxes(0, 1))
            pooled = [whole.reshape(rows, layers // 2, 2, count)]
        else:
            pooled = list(block)
        scores += [reading.score for reading in detector.score_pooled(pooled)]
    return np.array(scores, np.float64)
