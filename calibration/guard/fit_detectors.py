"""Fit the detectors that apply to given inputs, with as few passes of the graph as possible.

One pass over the labelled rows records states for all detectors that are fitted to them, and of the
rows of label 1 for the others, which score them later. Then one pass over the clean rows records
states for the other detectors, and scores the rows with the detectors that already have parameters.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, RowKind
from layerguard.calibration.guard.labelled_fit import LabelledFit
from layerguard.calibration.registry import CALIBRATORS
from layerguard.calibration.rows.traffic import MOST_SOURCES, MOST_TRAINED
from layerguard.calibration.stages import FittedDetector, FittedParameters
from layerguard.calibration.states.chosen import ChosenRows, Harmful
from layerguard.calibration.states.collect import Collector
from layerguard.calibration.states.passes import Pass, Reader, read_once
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.thresholds.kept_detectors import KeptDetectors
from layerguard.calibration.thresholds.text_scores import largest, worst_windows
from layerguard.calibration.votes.left_out import leave_one_source_out, recorded_scores
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row


def detectors_to_fit(inputs: Inputs) -> list[str]:
    """The names of the detectors that are fitted to the inputs."""
    return [calibrator.name for calibrator in CALIBRATORS if calibrator.applies(inputs)]


def fit_detectors(
    backbone: Backbone, inputs: Inputs, kept: KeptDetectors, read: Pass = read_once
) -> tuple[list[FittedDetector], tuple[str, ...]]:
    """Fit every detector that applies to the inputs.

    Args:
        backbone: backbone of the bundle that is calibrated.
        inputs: rows, weights and options.
        kept: the bundle's other detectors; their rows without stored scores are scored.
        read: runs the graph.

    Returns:
        The detectors, in the order of the registry, and one message for each row that was not used.

    Raises:
        CalibrationError: the rows or the tuning do not suffice for a fit.
        MachineError: the disk is too small for the recorded states.
    """
    inputs = replace(inputs, reader=backbone.reader)
    fitted: dict[str, FittedDetector] = {}
    with ExitStack() as stack:
        pending = _pending("clean", inputs, stack)
        labelled_fits = _pending("labelled", inputs, stack)
        harmful = [_harmful_only(fit.harmful) for fit in pending]
        if kept.names:
            harmful.append(_harmful_only(kept.harmful, unless=kept.seen_among(inputs.labelled)))
        run = partial(_read, read, backbone)
        faults = run(inputs.labelled, labelled_fits, "labelled rows", harmful)
        labelled = [LabelledFit(*fit.made(inputs, faults), inputs.clean) for fit in labelled_fits]
        scorers = [(kept.scorer, kept.fresh), *((fit.scorer, fit.fresh) for fit in labelled)]
        joint = [scorer for scorer, rows in scorers if pending and len(rows) == len(inputs.clean)]
        clean_faults = run(inputs.clean, pending, "clean rows", joint)
        for scorer, rows in scorers:
            if rows and scorer not in joint:
                clean_faults += read(backbone, rows, [scorer], "scoring rows")
        for fit in pending:
            detector, held_out = fit.made(inputs, clean_faults)
            fitted[detector.name] = replace(detector, clean_scores=largest(held_out))
    fitted |= {detector.name: detector for detector in (fit.detector() for fit in labelled)}
    names = [calibrator.name for calibrator in CALIBRATORS if calibrator.name in fitted]
    return [fitted[name] for name in names], tuple(dict.fromkeys([*faults, *clean_faults]))


@dataclass(frozen=True, slots=True)
class _PendingFit:
    """A detector whose states are being recorded, and those of rows of label 1 beside them."""

    calibrator: Calibrator
    fit: Fit
    recording: Recording
    collector: Collector
    harmful: Collector

    def made(
        self, inputs: Inputs, faults: Sequence[str]
    ) -> tuple[FittedDetector, list[tuple[Row, float]]]:
        """Fit the detector; also return its rows, each with the largest score of its windows.

        ``faults`` are those of the pass that recorded the states. The recording is closed.
        """
        recorded = self.collector.recorded(len(inputs.rows(self.calibrator.rows)), faults)
        fitted = self.fit.fit(recorded)
        left_out = leave_one_source_out(
            self.calibrator.name, self.fit, recorded, inputs.options.target_fpr, self._most_sources
        )
        self.recording.close()
        worst = worst_windows(fitted.held_out, recorded.owner, len(recorded.rows))
        scored = list(zip(recorded.rows, worst.tolist(), strict=True))
        harmful = largest((row, score) for row, score in scored if row.label == 1)
        detector = FittedDetector(
            name=self.calibrator.name,
            method=self.fit.method,
            params=fitted.params,
            rows=recorded.rows,
            seed=inputs.options.seed,
            settings=fitted.settings,
            threshold=fitted.published,
            harmful_scores=harmful or self._harmful_scores(fitted),
            left_out=left_out.measured,
            not_left_out=left_out.failed,
            reads=replace(REGISTRY[self.calibrator.name].tap, budget=self.fit.tap.budget),
        )
        return detector, scored

    @property
    def _most_sources(self) -> int:
        """The most sources without which it is fitted again."""
        if not REGISTRY[self.calibrator.name].decides:
            return 0
        return MOST_SOURCES if self.calibrator.rows == "clean" else MOST_TRAINED

    def _harmful_scores(self, fitted: FittedParameters) -> Mapping[str, float]:
        """The scores of the texts of label 1 that were recorded beside the detector's own rows."""
        if not self.harmful.rows:
            return {}
        recorded = self.harmful.recorded(len(self.harmful.rows), ())
        scores = recorded_scores(self.calibrator.name, self.fit, fitted.params, recorded.states)
        worst = worst_windows(scores, recorded.owner, len(recorded.rows)).tolist()
        return largest(zip(recorded.rows, worst, strict=True))


def _pending(kind: RowKind, inputs: Inputs, stack: ExitStack) -> list[_PendingFit]:
    """The fits to one kind of rows, each with a recording that ``stack`` closes."""
    pending = []
    for calibrator in CALIBRATORS:
        if calibrator.rows == kind and calibrator.applies(inputs):
            fit = calibrator.prepare(inputs)
            own, beside = (
                stack.enter_context(Recording(len(rows), inputs.options.cache))
                for rows in (inputs.rows(kind), inputs.labelled)
            )
            collectors = Collector(fit.tap, own), Collector(fit.tap, beside)
            pending.append(_PendingFit(calibrator, fit, own, *collectors))
    return pending


def _harmful_only(reader: Reader, unless: frozenset[str] = frozenset()) -> Reader:
    """Reads the rows of label 1, apart from those of some texts."""
    return ChosenRows(reader, Harmful(unless))


def _read(
    read: Pass,
    backbone: Backbone,
    rows: Sequence[Row],
    pending: Sequence[_PendingFit],
    description: str,
    others: Sequence[Reader] = (),
) -> list[str]:
    """Read the rows once if a fit records them; one message for each unused row."""
    readers: list[Reader] = [*(fit.collector for fit in pending), *others]
    return list(read(backbone, rows, readers, description)) if pending else []
