"""The checkpoint monitor: load it, verify it, and check checkpoints with it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.bundle.files import DETECTORS, file_faults
from layerguard.runtime.bundle.load import manifest_bytes
from layerguard.runtime.bundle.npz import read_npz
from layerguard.runtime.bundle.steady import steadily
from layerguard.runtime.drift.base import load_checkpoint
from layerguard.runtime.drift.manifest import WRITER, MonitorManifest, read_monitor_manifest
from layerguard.runtime.drift.parameters import PREFIX, monitor_faults
from layerguard.runtime.drift.projection import drift, project
from layerguard.runtime.drift.reading import DriftReading, TraitDrift
from layerguard.runtime.drift.regressor import predict
from layerguard.runtime.drift.states import evaluation_states
from layerguard.runtime.drift.step_aware import PROBABILITY_THRESHOLD, step_probability
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device
from layerguard.runtime.types import Array

_NAMED = 3
"""Most traits named in a reason."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointMonitor:
    """A verified checkpoint monitor.

    Attributes:
        manifest: the contents of its ``manifest.json``.
        params: its frozen arrays, by name.
        id: the first 16 hex digits of the manifest's sha256.
    """

    manifest: MonitorManifest
    params: Mapping[str, Array]
    id: str

    @classmethod
    def load(cls, path: str | Path) -> "CheckpointMonitor":
        """Load and verify the monitor in folder ``path``.

        Raises:
            BundleError: the monitor has faults; the error lists all of them.
        """
        folder = Path(path)
        return steadily(folder, _load, "layerguard drift fit")

    def check(
        self,
        checkpoint: str | Path,
        *,
        step: int | None = None,
        device: Device = "cpu",
        threads: int = 0,
    ) -> DriftReading:
        """Run a checkpoint on the monitor's prompts and measure how far it drifted.

        Args:
            checkpoint: folder of the checkpoint's bundle.
            step: training step of the checkpoint; required by a step-aware monitor.
            device: ``cpu`` or ``cuda``. There is no silent fallback to the CPU.
            threads: ONNX Runtime's threads within one operator; 0 lets ONNX Runtime choose.

        Raises:
            BundleError: the bundle has faults or is not a checkpoint of the monitor's base model;
                the error lists every fault.
            InputError: ``step`` is missing or below 1.
            MachineError: onnxruntime is missing or the device does not engage.
        """
        self._check_step(step)
        bundle = load_checkpoint(checkpoint, self.manifest.base, self.manifest.layer)
        backbone = Backbone(bundle, device, threads)
        states = evaluation_states(backbone, self.manifest.prompts, self.manifest.layer)
        return self.score_states(
            states, step, checkpoint=bundle.manifest.model.id, bundle_id=bundle.id
        )

    def score_states(
        self, states: Array, step: int | None = None, *, checkpoint: str = "", bundle_id: str = ""
    ) -> DriftReading:
        """The reading of a checkpoint from its states.

        Args:
            states: float [prompts, hidden], the state of the monitor's layer at the last token of
                each of its prompts, in order.
            step: as in ``check``.
            checkpoint: name of the checkpoint, copied into the reading.
            bundle_id: id of its bundle, copied into the reading.

        Raises:
            InputError: the states are of another shape, or ``step`` is missing or below 1.
        """
        self._check_step(step)
        expected = (len(self.manifest.prompts), self.manifest.base.model.width)
        if states.shape != expected:
            raise InputError(
                f"states: found {list(states.shape)}; expected {list(expected)}, one row for each "
                "of the monitor's prompts"
            )
        params = self.params
        shift = drift(
            project(states, params["directions"]), params["base_projection"], params["base_norm"]
        )
        predicted = float(np.clip(predict(params, shift[None])[0], 0.0, 1.0))
        score, threshold = predicted, self.manifest.threshold
        probability = None
        if self.manifest.step_aware:
            probability = float(step_probability(params, shift[None], np.array([step]))[0])
            score, threshold = probability, PROBABILITY_THRESHOLD
        valid = bool(np.isfinite(shift).all()) and math.isfinite(predicted + score)
        alarm = not (valid and score <= threshold)
        traits = self._traits(shift)
        return DriftReading(
            checkpoint=checkpoint,
            bundle_id=bundle_id,
            monitor_id=self.id,
            predicted=predicted,
            threshold=self.manifest.threshold,
            step=step,
            probability=probability,
            alarm=alarm,
            status="ok" if valid else "invalid",
            reason=_reason(
                score, threshold, traits, is_step_aware=probability is not None, valid=valid
            ),
            traits=traits,
        )

    def _check_step(self, step: int | None) -> None:
        if step is None and self.manifest.step_aware:
            raise InputError(
                "step: found none; this monitor is step-aware: expected the training step of the "
                "checkpoint (--step N)"
            )
        if step is not None and step < 1:
            raise InputError(f"step: found {step}; expected 1 or more (the base model is step 0)")

    def _traits(self, shift: Array) -> tuple[TraitDrift, ...]:
        """The drift of each trait, with the range of the aligned calibration checkpoints.

        Aligned means that the checkpoint's misalignment rate was at most the threshold.
        """
        aligned = self.params["calibration_rates"] <= self.manifest.threshold
        known = self.params["calibration_drift"][aligned]
        bounds = zip(known.min(axis=0).tolist(), known.max(axis=0).tolist(), strict=True)
        return tuple(
            TraitDrift(
                name=card.name,
                drift=value,
                low=low,
                high=high,
                towards=card.negative if value < 0 else card.positive,
                moved=not low <= value <= high,
            )
            for card, value, (low, high) in zip(
                self.manifest.traits, shift.tolist(), bounds, strict=True
            )
        )


def _reason(
    score: float,
    threshold: float,
    traits: Sequence[TraitDrift],
    *,
    is_step_aware: bool,
    valid: bool,
) -> str:
    if not valid:
        return "a state or score of this checkpoint is not finite, so it cannot be trusted"
    what = "probability of misalignment at this step" if is_step_aware else "predicted misalignment"
    verdict = "within" if score <= threshold else "above"
    outside = sorted((t for t in traits if t.moved), key=_excess, reverse=True)
    named = ", ".join(f"{t.name} towards {t.towards}" for t in outside[:_NAMED])
    moved = (
        f"outside the range of aligned calibration checkpoints: {named}"
        if named
        else "every trait is inside the range of aligned calibration checkpoints"
    )
    return f"{what} {100 * score:.1f} % is {verdict} {100 * threshold:g} %; {moved}"


def _excess(trait: TraitDrift) -> float:
    """Distance of a trait's drift from the range of aligned checkpoints."""
    return max(trait.low - trait.drift, trait.drift - trait.high)


def _load(folder: Path) -> CheckpointMonitor:
    data = manifest_bytes(folder, WRITER)
    manifest, faults = read_monitor_manifest(data)
    if manifest is None:
        raise BundleError(folder, faults)
    if DETECTORS not in manifest.files:
        faults.append(f"manifest.json lists no {DETECTORS!r}; run `{WRITER}` again")
    faults += file_faults(folder, manifest.files)
    if faults:
        raise BundleError(folder, faults)
    arrays, faults = read_npz(folder / DETECTORS)
    params = {key.removeprefix(f"{PREFIX}/"): array for key, array in arrays.items()}
    faults = faults or monitor_faults(manifest, params)
    if faults:
        raise BundleError(folder, faults)
    return CheckpointMonitor(manifest, params, hashlib.sha256(data).hexdigest()[:16])
