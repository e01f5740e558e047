"""Freeze a released SIREN or Agent-SIREN head into a bundle of its base model."""

from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration.artefacts import bundle_fit, released_head
from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.guard.freeze import freeze
from layerguard.calibration.guard.removed import removed_by_a_change
from layerguard.calibration.rows.labelled import read_clean
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.sources import RowSources
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.states.collect import record
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.thresholds import conformal
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device
from layerguard.runtime.types import Semantics


@dataclass(frozen=True, slots=True)
class ImportedHead:
    """The result of an import.

    Attributes:
        bundle_id: id of the bundle after the change.
        detector: the detector that was frozen.
        notes: remarks on this head in this bundle for the user.
        lost_decision: whether the import removed the bundle's decision over all detectors.
        removed: files deleted because they belong to the old detectors: fused graphs, a signature.
        faults: one message for each row that was not used.
    """

    bundle_id: str
    detector: FittedDetector
    notes: tuple[str, ...]
    lost_decision: bool
    removed: tuple[str, ...]
    faults: tuple[str, ...]


def import_siren(
    artefact: str | Path,
    bundle: str | Path,
    *,
    clean: RowSources = (),
    target_fpr: float = DEFAULT_TARGET_FPR,
    last_layer: Semantics | None = None,
    other_base: bool = False,
    device: Device = "cpu",
    threads: int = 0,
) -> ImportedHead:
    """Freeze a released SIREN head into a bundle, without retraining.

    Args:
        artefact: folder with siren_config.json and siren.safetensors.
        bundle: folder of a bundle of the head's base model.
        clean: files or rows that calibrate the threshold; empty for the artefact's threshold.
        target_fpr: share of clean traffic that may be flagged, in (0, 1); used with ``clean``.
        last_layer: the last block's state before (``block``) or after (``hf``) the final norm, if
            the head reads it; None for llm-siren's own choice.
        other_base: accept a model of another name as the head's base model.
        device: where the graph runs.
        threads: threads of one operator; 0 lets ONNX Runtime choose.

    Raises:
        InputError: the head is malformed or does not fit the bundle; lists every fault.
        CalibrationError: the clean rows do not support the target.
        BundleError: the bundle is invalid.
    """
    head = released_head.read(Path(artefact))
    before = Bundle.load(Path(bundle))
    bundle_fit.check(head, before.manifest, other_base=other_base)
    detector = bundle_fit.as_published(
        head,
        Path(artefact).resolve().name,
        bundle_fit.tap_in(head, before.manifest, last_layer),
        last_layer_read=bundle_fit.reads_last_layer(head, before.manifest),
    )
    backbone = Backbone(before, device, threads)
    faults: tuple[str, ...] = ()
    if clean:
        read = read_clean(clean)
        conformal.rank(len(set(map(prompt_group, read.rows))), target_fpr)  # fail early
        with Recording(len(read.rows)) as recording:
            recorded = record(backbone, read.rows, detector.tap, "clean rows", recording)
            detector = bundle_fit.recalibrated(detector, recorded, target_fpr)
        faults = (*read.faults, *recorded.faults)
    removed = removed_by_a_change(before)
    freeze(before, backbone, [detector])
    return ImportedHead(
        bundle_id=Bundle.load(before.path).id,
        detector=detector,
        notes=tuple(bundle_fit.notes(head, before.manifest)),
        lost_decision=before.manifest.decision is not None,
        removed=removed,
        faults=faults,
    )
