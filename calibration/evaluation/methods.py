"""The detectors of a bundle and simpler baselines, measured on the same labelled rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerguard.calibration.evaluation.baselines import LayerProbe, WordBaseline
from layerguard.calibration.evaluation.ranking import GUARD
from layerguard.calibration.evaluation.results import (
    FileResult,
    MethodMetrics,
    metrics_of_decisions,
    metrics_of_scores,
)
from layerguard.calibration.evaluation.scored_rows import (
    ScoredRow,
    flags_of,
    label_array,
    scores_of,
    thresholds_of,
)
from layerguard.calibration.registry import CALIBRATORS
from layerguard.calibration.rows.folds import group_codes
from layerguard.calibration.rows.labelled import LabelledRows, labels_of, read_labelled
from layerguard.calibration.rows.leakage import TestTexts, prompt_group
from layerguard.calibration.rows.sources import RowSources
from layerguard.calibration.rows.stratified import check_counts
from layerguard.calibration.states.collect import record
from layerguard.calibration.states.passes import Pass, Reduction, read_once
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds.text_scores import failing_closed, worst_windows
from layerguard.runtime.binding import bind_detectors, worst_readings
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import BundleError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array, Reading, Tap

_MEAN = Tap(view="content", pooling="mean")
"""Tap of the single-layer probe: the mean over the tokens of a text."""


@dataclass(frozen=True, slots=True)
class Method:
    """A detector or a baseline.

    Attributes:
        name: name in the report.
        tap: the states that it reads.
        scorer: a detector; or, of a baseline, what maps rows and their pooled states to float64
            [rows]. A baseline has no operating threshold.
        probability: whether scores are probabilities of harm.
    """

    name: str
    tap: Tap
    scorer: Detector | Callable[[Sequence[Row], PooledStates], Array]
    probability: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of one file, its scored rows, and one message for each unused row."""

    result: FileResult
    rows: tuple[ScoredRow, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Fitted baselines, the number of training rows left out, and faults of rows."""

    methods: tuple[Method, ...]
    dropped: int
    faults: tuple[str, ...]


def detector_methods(bundle: Bundle) -> tuple[Method, ...]:
    """The bundle's detectors as methods, without those that never decide.

    Raises:
        BundleError: the bundle has no detectors, or a kernel rejects its parameters.
    """
    if not bundle.manifest.detectors:
        fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
        raise BundleError(bundle.path, [fault])
    probabilities = {calibrator.name for calibrator in CALIBRATORS if calibrator.probability}
    return tuple(
        Method(name, detector.tap, detector, name in probabilities)
        for name, detector in bind_detectors(bundle).items()
        if REGISTRY[name].decides
    )


def fit_baselines(
    backbone: Backbone,
    training: RowSources,
    tests: RowSources,
    seed: int = 0,
    read: Pass = read_once,
) -> Baselines:
    """Fit word statistics and the best single-layer probe on training rows.

    Args:
        backbone: backbone of the measured bundle.
        training: labelled files or rows.
        tests: files or rows whose texts are left out of the training rows.
        seed: random seed of the folds.
        read: runs the graph.

    Raises:
        CalibrationError: a label is missing or too rare.
    """
    given = read_labelled(training)
    unseen = TestTexts.read(tests).without(given.rows)
    with Recording(len(unseen)) as recording:
        recorded = record(backbone, unseen, _MEAN, "training rows", recording, read)
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
        Method(name, _MEAN, score, probability=True)
        for name, score in (
            ("tf-idf + logistic", score_words),
            (f"probe of layer {probe.layer}", score_probe),
        )
    )
    dropped = len(given.rows) - len(unseen)
    return Baselines(methods, dropped, given.faults + recorded.faults)


def measure(
    backbone: Backbone,
    methods: Sequence[Method],
    decision: Decision,
    name: str,
    labelled: LabelledRows,
    read: Pass = read_once,
) -> Measured:
    """The metrics of every method on one file, and of the whole guard if it has several detectors.

    Args:
        backbone: backbone of the measured bundle.
        methods: the detectors, and any baselines.
        decision: the deciding detectors and their thresholds.
        name: name of the file in the report.
        labelled: rows of the file.
        read: runs the graph.
    """
    scorer = _MethodScorer(methods, decision, name)
    faults = read(backbone, labelled.rows, [scorer], name)
    labels = label_array(scorer.rows)
    result = FileResult(name, len(labels), int(labels.sum()), _lines(methods, scorer.rows))
    return Measured(result, tuple(scorer.rows), labelled.faults + faults)


@dataclass(frozen=True, slots=True)
class _Results:
    """What the methods make of one row: readings by detector, and scores by baseline."""

    tokens: int
    truncated: bool
    readings: Mapping[str, Reading]
    baselines: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _OfMethods:
    """A ``Reduction`` that keeps the methods' results; a non-finite score counts as the largest."""

    methods: tuple[Method, ...]

    @property
    def taps(self) -> set[Tap]:
        """See ``Reduction``."""
        return {method.tap for method in self.methods}

    def __call__(
        self, rows: Sequence[Row], pooled: PooledStates, reader: TokenReader
    ) -> list[_Results]:
        requests = [row.request for row in rows]
        readings: dict[str, list[Reading]] = {}
        baselines: dict[str, Array] = {}
        for method in self.methods:
            if callable(method.scorer):
                baselines[method.name] = failing_closed(method.scorer(rows, pooled))
            else:
                readings[method.name] = worst_readings(method.scorer, pooled, requests, reader)
        return [
            _Results(
                tokens=pooled.tokens[i],
                truncated=pooled.truncated[i],
                readings={name: of_rows[i] for name, of_rows in readings.items()},
                baselines={name: float(scores[i]) for name, scores in baselines.items()},
            )
            for i in range(len(rows))
        ]


class _MethodScorer:
    """A ``Reader`` that stores what every method makes of each row, and the guard's decision.

    Attributes:
        reduction: scores the rows.
        rows: the scored rows.
    """

    def __init__(self, methods: Sequence[Method], decision: Decision, file: str) -> None:
        self._decision, self._file = decision, file
        self.reduction: Reduction = _OfMethods(tuple(methods))
        self.rows: list[ScoredRow] = []

    def add(self, rows: Sequence[Row], kept: Any) -> list[str]:
        """See ``Reader``."""
        for row, results in zip(rows, kept, strict=True):
            decided = self._decision.decide(results.readings, row.domain)
            self.rows.append(
                ScoredRow(
                    file=self._file,
                    row=row,
                    tokens=results.tokens,
                    truncated=results.truncated,
                    flagged=decided.flagged,
                    p_value=decided.p_value,
                    readings=decided.readings,
                    baselines=results.baselines,
                )
            )
        return []


def _lines(methods: Sequence[Method], rows: Sequence[ScoredRow]) -> tuple[MethodMetrics, ...]:
    """The metrics of each method, and of the whole guard after its detectors."""
    labels = label_array(rows)
    detectors = [method.name for method in methods if not callable(method.scorer)]
    lines = [
        metrics_of_scores(
            method.name,
            labels,
            scores_of(rows, method.name),
            thresholds_of(rows, method.name) if method.name in detectors else None,
            probability=method.probability,
        )
        for method in methods
    ]
    if len(detectors) > 1:
        lines.insert(len(detectors), metrics_of_decisions(GUARD, labels, flags_of(rows)))
    return tuple(lines)
