"""Fit the detectors that some rows can fit, with as few passes of the graph as they need.

Labelled rows are read first and train SIREN. Then the clean rows are read once: for the states of
LCF, the extremes of WeightWatch, and the scores of detectors that have their parameters already.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration import lcf, weightwatch
from layerguard.calibration.collect import Collector, read_once, record
from layerguard.calibration.fitting import Fitted, SirenFit, fit_lcf, fit_weightwatch
from layerguard.calibration.recording import Recording
from layerguard.calibration.scoring import Scorer
from layerguard.calibration.together import KeptDetectors
from layerguard.calibration.weights import Tuning
from layerguard.calibration.weightwatch_directions import PUBLISHED_DROP, directions, watching
from layerguard.runtime.bundle.manifest import ModelCard
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row


@dataclass(frozen=True, slots=True)
class How:
    """What the user chose.

    Attributes:
        mode: of the thresholds.
        eta: of SIREN, the share of the probes' weight that is kept.
        target_fpr: share of clean traffic that may be flagged.
        seed: of everything random.
        cache: folder of temporary files of states; None is the system's.
    """

    mode: lcf.Mode
    eta: float
    target_fpr: float
    seed: int
    cache: Path | None = None


def fit_all(
    backbone: Backbone,
    model: ModelCard,
    clean: Sequence[Row],
    labelled: Sequence[Row],
    tuning: Tuning | None,
    kept: KeptDetectors,
    how: How,
) -> tuple[list[Fitted], tuple[str, ...]]:
    """LCF on clean rows, WeightWatch on them and a tuning, SIREN on labelled rows.

    Args:
        backbone: of the bundle that is calibrated.
        model: its model.
        clean: rows; may be empty.
        labelled: rows; may be empty.
        tuning: what WeightWatch watches, or None.
        kept: the bundle's other detectors; their fresh rows are scored.
        how: what the user chose.

    Returns:
        The detectors, and a sentence for each row that was of no use.

    Raises:
        CalibrationError: the rows, or the tuning, do not support a fit.
        MachineError: no room for the states.
    """
    faults: list[str] = []
    scorers: list[tuple[Scorer, Sequence[Row]]] = [(kept.scorer, kept.fresh)]
    siren: SirenFit | None = None
    if labelled:
        with Recording(len(labelled), how.cache) as recording:
            found = record(backbone, labelled, REGISTRY["siren"].tap, "labelled rows", recording)
            siren = SirenFit(found, clean, how.eta, how.target_fpr, how.seed)
        faults += found.faults
        scorers.append((siren.scorer, siren.fresh))
    fitted: list[Fitted] = []
    with ExitStack() as stack:
        collectors = []
        if clean:
            states = stack.enter_context(Recording(len(clean), how.cache))
            collectors.append(Collector(REGISTRY["lcf"].tap, states))
        mode: weightwatch.Mode = "reference" if how.mode == "reference" else "cross-fit"
        if tuning is not None:
            drop = PUBLISHED_DROP if mode == "reference" else 0
            watched = directions(tuning, model.total_layers, drop=drop, kept=model.layers)
            extremes = stack.enter_context(Recording(len(clean), how.cache))
            collectors.append(Collector(watching(watched), extremes))
        read = _read(backbone, clean, collectors, scorers)
        faults += read
        if clean:
            whole = collectors[0].collected(len(clean), read)
            fitted.append(fit_lcf(whole, how.mode, how.target_fpr, how.seed))
            states.close()
        if tuning is not None:
            whole = collectors[1].collected(len(clean), read)
            fitted.append(fit_weightwatch(whole, watched, mode, how.target_fpr, how.seed))
    if siren is not None:
        fitted.append(siren.fitted())
    return fitted, tuple(dict.fromkeys(faults))


def _read(
    backbone: Backbone,
    clean: Sequence[Row],
    collectors: Sequence[Collector],
    scorers: Sequence[tuple[Scorer, Sequence[Row]]],
) -> list[str]:
    """One pass over the clean rows, and one more for each scorer that does not want all of them."""
    joint = [scorer for scorer, rows in scorers if collectors and len(rows) == len(clean)]
    faults: list[str] = []
    if collectors:
        faults += read_once(backbone, clean, [*collectors, *joint], "clean rows")
    for scorer, rows in scorers:
        if rows and scorer not in joint:
            faults += read_once(backbone, rows, [scorer], "scoring rows")
    return faults
