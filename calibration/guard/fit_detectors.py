"""Fit the detectors that apply to given inputs, with as few passes of the graph as possible.

One pass over the labelled rows records states for all detectors that are fitted to them. Then one
pass over the clean rows records states for the other detectors, and scores the rows with the
detectors that already have parameters.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, RowKind
from layerguard.calibration.guard.labelled_fit import LabelledFit
from layerguard.calibration.registry import CALIBRATORS
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.states.collect import Collector, Reader, read_once
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.thresholds.kept_detectors import KeptDetectors
from layerguard.calibration.thresholds.text_scores import TextScorer, largest, worst_windows
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row


def detectors_to_fit(inputs: Inputs) -> list[str]:
    """The names of the detectors that are fitted to the inputs."""
    return [calibrator.name for calibrator in CALIBRATORS if calibrator.applies(inputs)]


def fit_detectors(
    backbone: Backbone, inputs: Inputs, kept: KeptDetectors
) -> tuple[list[FittedDetector], tuple[str, ...]]:
    """Fit every detector that applies to the inputs.

    Args:
        backbone: backbone of the bundle that is calibrated.
        inputs: rows, weights and options.
        kept: the bundle's other detectors; their rows without stored scores are scored.

    Returns:
        The detectors, in the order of the registry, and one message for each row that was not used.

    Raises:
        CalibrationError: the rows or the tuning do not suffice for a fit.
        MachineError: the disk is too small for the recorded states.
    """
    fitted: dict[str, FittedDetector] = {}
    with ExitStack() as stack:
        pending = _pending("labelled", inputs, stack)
        faults = _read(backbone, inputs.labelled, pending, "labelled rows")
        labelled = [LabelledFit(*fit.made(inputs, faults), inputs.clean) for fit in pending]
    scorers = [(kept.scorer, kept.fresh), *((fit.scorer, fit.fresh) for fit in labelled)]
    with ExitStack() as stack:
        pending = _pending("clean", inputs, stack)
        joint = [scorer for scorer, rows in scorers if pending and len(rows) == len(inputs.clean)]
        clean_faults = _read(backbone, inputs.clean, pending, "clean rows", joint)
        for scorer, rows in scorers:
            if rows and scorer not in joint:
                clean_faults += read_once(backbone, rows, [scorer], "scoring rows")
        for fit in pending:
            detector, held_out = fit.made(inputs, clean_faults)
            fitted[detector.name] = replace(detector, clean_scores=largest(held_out))
    fitted |= {detector.name: detector for detector in (fit.detector() for fit in labelled)}
    names = [calibrator.name for calibrator in CALIBRATORS if calibrator.name in fitted]
    return [fitted[name] for name in names], tuple(dict.fromkeys([*faults, *clean_faults]))


@dataclass(frozen=True, slots=True)
class _PendingFit:
    """A detector whose states are being recorded."""

    calibrator: Calibrator
    fit: Fit
    recording: Recording
    collector: Collector

    def made(
        self, inputs: Inputs, faults: Sequence[str]
    ) -> tuple[FittedDetector, list[tuple[Row, float]]]:
        """Fit the detector; also return its rows, each with the largest score of its windows.

        ``faults`` are those of the pass that recorded the states. The recording is closed.
        """
        recorded = self.collector.recorded(len(inputs.rows(self.calibrator.rows)), faults)
        fitted = self.fit.fit(recorded)
        self.recording.close()
        worst = worst_windows(fitted.held_out, recorded.owner, len(recorded.rows))
        detector = FittedDetector(
            name=self.calibrator.name,
            method=self.fit.method,
            params=fitted.params,
            rows=recorded.rows,
            seed=inputs.options.seed,
            settings=fitted.settings,
            threshold=fitted.published,
        )
        return detector, list(zip(recorded.rows, worst.tolist(), strict=True))


def _pending(kind: RowKind, inputs: Inputs, stack: ExitStack) -> list[_PendingFit]:
    """The fits to one kind of rows, each with a recording that ``stack`` closes."""
    pending = []
    for calibrator in CALIBRATORS:
        if calibrator.rows == kind and calibrator.applies(inputs):
            fit = calibrator.prepare(inputs)
            recording = stack.enter_context(Recording(len(inputs.rows(kind)), inputs.options.cache))
            pending.append(_PendingFit(calibrator, fit, recording, Collector(fit.tap, recording)))
    return pending


def _read(
    backbone: Backbone,
    rows: Sequence[Row],
    pending: Sequence[_PendingFit],
    description: str,
    scorers: Sequence[TextScorer] = (),
) -> list[str]:
    """Read the rows once if a fit records them; one message for each unused row."""
    readers: list[Reader] = [*(fit.collector for fit in pending), *scorers]
    return list(read_once(backbone, rows, readers, description)) if pending else []
