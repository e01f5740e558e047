"""Set the thresholds of a bundle again on recent traffic; no other parameter changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration.guard.freeze import freeze
from layerguard.calibration.guard.removed import removed_by_a_change
from layerguard.calibration.notify import Notify, silent
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.sources import RowSources, read_sources
from layerguard.calibration.rows.text_hashes import TextHashes, hashes_of
from layerguard.calibration.thresholds.guard_thresholds import Policy, set_thresholds
from layerguard.calibration.thresholds.kept_detectors import seen_texts
from layerguard.calibration.thresholds.text_scores import score_texts
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle, Manifest
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Device
from layerguard.runtime.rows.jsonl import Row


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The result of a recalibration.

    Attributes:
        bundle: folder of the bundle.
        bundle_id: id of the bundle after the change.
        thresholds: the threshold before and after, by detector.
        decision: the deciding detectors and the promised false-positive rate.
        clean_texts: number of given texts; ``decision.n`` of them set the thresholds.
        lost_domains: domains whose own thresholds were removed, because they have too few rows.
        removed: files deleted because they belong to the old detectors: fused graphs, a signature.
        faults: one message for each row that was not used.
    """

    bundle: Path
    bundle_id: str
    thresholds: Mapping[str, tuple[float, float]]
    decision: DecisionCard
    clean_texts: int
    lost_domains: tuple[str, ...]
    removed: tuple[str, ...]
    faults: tuple[str, ...]


def recalibrate(
    bundle: str | Path,
    shadow: RowSources,
    *,
    target_fpr: float | None = None,
    device: Device = "cpu",
    threads: int = 0,
    notify: Notify = silent,
) -> Recalibration:
    """Set all thresholds from the detectors' scores of recent traffic.

    Rows of label 1 and texts that the detectors were fitted on are left out.

    Args:
        bundle: folder of a calibrated bundle.
        shadow: files or rows of recent traffic that is assumed to be clean.
        target_fpr: share of this traffic that the whole guard may flag, in (0, 1); None for the
            bundle's own target.
        device: where the graph runs; the thresholds fit that device.
        threads: threads of one operator; 0 lets ONNX Runtime choose.
        notify: called with one message for each kind of rows that are left out.

    Raises:
        InputError: the rows cannot be read.
        CalibrationError: the rows do not suffice for the target.
        BundleError: the bundle is invalid, or has no detectors.
    """
    guard = Guard.load(Path(bundle), device=device, threads=threads)
    before, seen = guard.bundle, seen_texts(guard.bundle)
    hashes = hashes_of(before)
    read = read_sources(shadow)
    faults = list(read.faults)
    rows = _unseen(read.good, hashes, set(seen.tolist()), notify)
    texts = len(set(map(prompt_group, rows)))
    policy = _policy(before.manifest, target_fpr)
    policy.check_support(texts, before.manifest.detectors)

    scores = score_texts(guard.backbone, bind_detectors(before), rows, faults)
    thresholds = set_thresholds(scores, rows, policy, seen=seen, hashes=hashes)
    removed = removed_by_a_change(before)
    after = freeze(before, guard.backbone, [], thresholds)
    lost = _own_domains(before.manifest.decision) - _own_domains(thresholds.card)
    return Recalibration(
        bundle=before.path,
        bundle_id=Bundle.load(before.path).id,
        thresholds={
            name: (before.manifest.detectors[name].threshold, card.threshold)
            for name, card in after.detectors.items()
        },
        decision=thresholds.card,
        clean_texts=texts,
        lost_domains=tuple(sorted(lost)),
        removed=removed,
        faults=tuple(faults),
    )


def _own_domains(card: DecisionCard | None) -> set[str]:
    """The domains that have thresholds of their own."""
    return {name for name, own in card.domains.items() if own.thresholds} if card else set()


def _unseen(rows: Sequence[Row], hashes: TextHashes, seen: set[int], notify: Notify) -> list[Row]:
    """The rows that may set thresholds: not of label 1, and not fitted on."""
    clean = [row for row in rows if row.label != 1]
    codes = hashes.of(map(prompt_group, clean)).tolist()
    unseen = [row for row, code in zip(clean, codes, strict=True) if code not in seen]
    if len(clean) < len(rows):
        notify(f"left out {len(rows) - len(clean)} of {len(rows)} rows: label 1, not clean")
    if len(unseen) < len(clean):
        fitted_on = len(clean) - len(unseen)
        notify(f"left out {fitted_on} of {len(rows)} rows: a detector was fitted on their text")
    return unseen


def _policy(manifest: Manifest, target_fpr: float | None) -> Policy:
    """The bundle's policy, with the given target or the bundle's own."""
    card, detectors = manifest.decision, manifest.detectors
    if card is None:  # each detector had a target of its own; the guard gets the strictest
        own = min(detector.target_fpr for detector in detectors.values())
        return Policy("any", (), own if target_fpr is None else target_fpr)
    target = card.target_fpr if target_fpr is None else target_fpr
    return Policy(card.policy, card.shadow, target)
