"""The detectors of a bundle and simpler baselines, measured on the same labelled rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.evaluation.baselines import LayerProbe, WordBaseline
from layerguard.calibration.evaluation.domains import guard_flags, row_thresholds
from layerguard.calibration.evaluation.results import (
    FileResult,
    MethodMetrics,
    metrics_of_decisions,
    metrics_of_scores,
)
from layerguard.calibration.registry import CALIBRATORS
from layerguard.calibration.rows.folds import group_codes
from layerguard.calibration.rows.labelled import LabelledRows, labels_of, read_labelled
from layerguard.calibration.rows.leakage import TestTexts, prompt_group
from layerguard.calibration.rows.sources import RowSources
from layerguard.calibration.rows.stratified import check_counts
from layerguard.calibration.states.collect import read_once, record
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds.text_scores import worst_windows
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import BundleError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Tap

_MEAN = Tap(view="content", pooling="mean")
"""Tap of the single-layer probe: the mean over the tokens of a text."""


@dataclass(frozen=True, slots=True)
class Method:
    """A detector or a baseline that scores rows.

    Attributes:
        name: name in the report.
        tap: the states that it reads.
        score: maps rows and their pooled states to float64 [rows], infinity where invalid.
        baseline: whether it is a baseline, which has no operating threshold.
        probability: whether scores are probabilities of harm.
    """

    name: str
    tap: Tap
    score: Callable[[Sequence[Row], PooledStates], Array]
    baseline: bool
    probability: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of one file, its rows and scores, and one message for each unused row."""

    result: FileResult
    rows: tuple[Row, ...]
    scores: Mapping[str, Array]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Fitted baselines, the number of training rows left out, and faults of rows."""

    methods: tuple[Method, ...]
    dropped: int
    faults: tuple[str, ...]


def detector_methods(bundle: Bundle) -> tuple[Method, ...]:
    """The bundle's detectors as methods.

    Raises:
        BundleError: the bundle has no detectors, or a kernel rejects its parameters.
    """
    if not bundle.manifest.detectors:
        fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
        raise BundleError(bundle.path, [fault])
    probabilities = {calibrator.name for calibrator in CALIBRATORS if calibrator.probability}
    return tuple(
        Method(
            name=name,
            tap=detector.tap,
            score=_scorer(detector),
            baseline=False,
            probability=name in probabilities,
        )
        for name, detector in bind_detectors(bundle).items()
    )


def fit_baselines(
    backbone: Backbone, training: RowSources, tests: RowSources, seed: int = 0
) -> Baselines:
    """Fit word statistics and the best single-layer probe on training rows.

    Args:
        backbone: backbone of the measured bundle.
        training: labelled files or rows.
        tests: files or rows whose texts are left out of the training rows.
        seed: random seed of the folds.

    Raises:
        CalibrationError: a label is missing or too rare.
    """
    read = read_labelled(training)
    unseen = TestTexts.read(tests).without(read.rows)
    with Recording(len(unseen)) as recording:
        recorded = record(backbone, unseen, _MEAN, "training rows", recording)
        rows, owner = recorded.rows, recorded.owner
        labels = labels_of(rows)
        codes = group_codes([prompt_group(row) for row in rows], len(rows))
        check_counts("the baselines", labels, codes)
        with one_thread():
            words = WordBaseline([row.request.content() for row in rows], labels, codes, seed)
            probe = LayerProbe(recorded.states, labels[owner], codes[owner], seed)

    def score_words(rows: Sequence[Row], _: PooledStates) -> Array:
        return words.score([row.request.content() for row in rows])

    def score_probe(rows: Sequence[Row], pooled: PooledStates) -> Array:
        layers, owner = pooled.of(_MEAN)
        return worst_windows(probe.score(layers[probe.layer]), owner, len(rows))

    methods = tuple(
        Method(name, _MEAN, score, baseline=True, probability=True)
        for name, score in (
            ("tf-idf + logistic", score_words),
            (f"probe of layer {probe.layer}", score_probe),
        )
    )
    dropped = len(read.rows) - len(unseen)
    return Baselines(methods, dropped, read.faults + recorded.faults)


def measure(
    backbone: Backbone,
    methods: Sequence[Method],
    decision: Decision,
    name: str,
    labelled: LabelledRows,
) -> Measured:
    """The metrics of every method on one file, and of the whole guard if it has several detectors.

    Args:
        backbone: backbone of the measured bundle.
        methods: the detectors, and any baselines.
        decision: the deciding detectors and their thresholds.
        name: name of the file in the report.
        labelled: rows of the file.
    """
    scorer = _MethodScorer(methods)
    faults = read_once(backbone, labelled.rows, [scorer], name)
    rows, scores = scorer.rows, scorer.scores()
    lines = _lines(methods, decision, rows, scores)
    result = FileResult(name, len(rows), int(labels_of(rows).sum()), lines)
    return Measured(result, tuple(rows), scores, labelled.faults + faults)


class _MethodScorer:
    """A ``Reader`` that stores the scores of the given methods."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = methods
        self._parts: list[dict[str, Array]] = []
        self.taps = {method.tap for method in methods}
        self.rows: list[Row] = []

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """See ``Reader``; a non-finite score counts as the largest."""
        self._parts.append({method.name: method.score(rows, pooled) for method in self._methods})
        self.rows += rows
        return []

    def scores(self) -> dict[str, Array]:
        """The scores by method, float64 [rows]."""
        names = [method.name for method in self._methods]
        return {name: _joined([part[name] for part in self._parts]) for name in names}


def _lines(
    methods: Sequence[Method],
    decision: Decision,
    rows: Sequence[Row],
    scores: Mapping[str, Array],
) -> tuple[MethodMetrics, ...]:
    """The metrics of each method, and of the whole guard after its detectors."""
    labels = labels_of(rows)
    thresholds = {m.name: row_thresholds(decision, m.name, rows) for m in methods if not m.baseline}
    lines = [
        metrics_of_scores(
            m.name, labels, scores[m.name], thresholds.get(m.name), probability=m.probability
        )
        for m in methods
    ]
    if len(thresholds) > 1:
        flagged = guard_flags(decision, scores, thresholds)
        lines.insert(len(thresholds), metrics_of_decisions("guard", labels, flagged))
    return tuple(lines)


def _scorer(detector: Detector) -> Callable[[Sequence[Row], PooledStates], Array]:
    def score(rows: Sequence[Row], pooled: PooledStates) -> Array:
        layers, owner = pooled.of(detector.tap)
        scores = np.array([reading.score for reading in detector.score_pooled(layers)])
        return worst_windows(scores, owner, len(rows))

    return score


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty(0)
