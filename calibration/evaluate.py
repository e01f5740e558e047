"""Measuring a bundle on labelled rows, beside what simpler methods do on the same rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration import siren
from layerguard.calibration.baselines import LayerProbe, WordBaseline
from layerguard.calibration.collect import read_chunks, record
from layerguard.calibration.domains import guard_flags, limits
from layerguard.calibration.figures import Figures, FileResult, of_decisions, of_scores
from layerguard.calibration.folds import group_codes
from layerguard.calibration.labelled import labels_of, read_labelled
from layerguard.calibration.leakage import TestTexts, prompt_group
from layerguard.calibration.recording import Recording
from layerguard.calibration.scoring import of_rows
from layerguard.calibration.threads import one_thread
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import BundleError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array, Tap

_MEAN = REGISTRY["siren"].tap
"""What the single-layer probe reads: SIREN's own view and pooling."""


@dataclass(frozen=True, slots=True)
class Method:
    """Something that scores rows.

    Attributes:
        name: in the report.
        tap: what it reads of the states.
        score: rows and their pooled states -> float64 [rows], infinity where it is invalid.
        baseline: whether it has no operating threshold.
        probability: whether scores are probabilities of harm.
    """

    name: str
    tap: Tap
    score: Callable[[Sequence[Row], PooledStates], Array]
    baseline: bool
    probability: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one file, the rows and scores behind them, and a sentence a useless row."""

    result: FileResult
    rows: tuple[Row, ...]
    scores: Mapping[str, Array]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Fitted baselines, how many training rows the test files held, and faults found."""

    methods: tuple[Method, ...]
    dropped: int
    faults: tuple[str, ...]


def detector_methods(bundle: Bundle) -> tuple[Method, ...]:
    """The bundle's detectors as methods.

    Raises:
        BundleError: it has none, or a kernel refuses its parameters.
    """
    if not bundle.manifest.detectors:
        fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
        raise BundleError(bundle.path, [fault])
    return tuple(
        Method(
            name=name,
            tap=detector.tap,
            score=_scorer(detector),
            baseline=False,
            probability=name == "siren",
        )
        for name, detector in bind_detectors(bundle).items()
    )


def fit_baselines(
    backbone: Backbone, training: Sequence[Path], tests: Sequence[Path], seed: int = 0
) -> Baselines:
    """Fit word statistics and the best single-layer probe on training rows.

    Args:
        backbone: of the bundle that is measured.
        training: files of labelled rows.
        tests: files whose texts are dropped from the training rows.
        seed: of the folds.

    Raises:
        CalibrationError: a label is missing or too rare.
    """
    found = read_labelled(training)
    kept = TestTexts.read(tests).without(found.rows)
    with Recording(len(kept)) as recording:
        collected = record(backbone, kept, _MEAN, "training rows", recording)
        rows, owner = collected.rows, collected.owner
        labels = labels_of(rows)
        codes = group_codes([prompt_group(row) for row in rows], len(rows))
        siren.check_counts("the baselines", labels, codes)
        with one_thread():
            words = WordBaseline([row.request.content() for row in rows], labels, codes, seed)
            probe = LayerProbe(collected.states, labels[owner], codes[owner], seed)

    def score_words(rows: Sequence[Row], _: PooledStates) -> Array:
        return words.score([row.request.content() for row in rows])

    def score_probe(rows: Sequence[Row], pooled: PooledStates) -> Array:
        layers, owner = pooled.of(_MEAN)
        return of_rows(probe.score(layers[probe.layer]), owner, len(rows))

    methods = tuple(
        Method(name, _MEAN, score, baseline=True, probability=True)
        for name, score in (
            ("tf-idf + logistic", score_words),
            (f"probe of layer {probe.layer}", score_probe),
        )
    )
    dropped = len(found.rows) - len(kept)
    return Baselines(methods, dropped, found.faults + collected.faults)


def measure(
    backbone: Backbone, methods: Sequence[Method], decision: Decision, path: Path
) -> Measured:
    """The figures of every method on one file, and of the guard's decision if several decide.

    Raises:
        InputError: the file cannot be opened, or no row of it has a label.
    """
    found = read_labelled([path])
    faults: list[str] = []
    rows: list[Row] = []
    parts: list[dict[str, Array]] = []
    taps = {method.tap for method in methods}
    for chunk, pooled in read_chunks(backbone, found.rows, taps, faults, path.stem):
        parts.append({method.name: method.score(chunk, pooled) for method in methods})
        rows += chunk
    scores = {method.name: _joined([part[method.name] for part in parts]) for method in methods}
    lines = _lines(methods, decision, rows, scores)
    result = FileResult(path.stem, len(rows), int(labels_of(rows).sum()), lines)
    return Measured(result, tuple(rows), scores, found.faults + tuple(faults))


def _lines(
    methods: Sequence[Method],
    decision: Decision,
    rows: Sequence[Row],
    scores: Mapping[str, Array],
) -> tuple[Figures, ...]:
    """A line for each method, and one for the whole guard after its detectors."""
    labels = labels_of(rows)
    thresholds = {m.name: limits(decision, m.name, rows) for m in methods if not m.baseline}
    lines = [
        of_scores(m.name, labels, scores[m.name], thresholds.get(m.name), probability=m.probability)
        for m in methods
    ]
    if len(thresholds) > 1:
        flagged = guard_flags(decision, scores, thresholds)
        lines.insert(len(thresholds), of_decisions("guard", labels, flagged))
    return tuple(lines)


def _scorer(detector: Detector) -> Callable[[Sequence[Row], PooledStates], Array]:
    def score(rows: Sequence[Row], pooled: PooledStates) -> Array:
        layers, owner = pooled.of(detector.tap)
        scores = np.array([reading.score for reading in detector.score_pooled(layers)])
        return of_rows(scores, owner, len(rows))

    return score


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty(0)
