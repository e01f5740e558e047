"""The drift monitor: loaded, verified, and asked about a checkpoint."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.bundle.files import DETECTORS, file_faults
from layerguard.runtime.bundle.load import manifest_bytes, steadily
from layerguard.runtime.bundle.npz import read_npz
from layerguard.runtime.drift.base import load_checkpoint
from layerguard.runtime.drift.manifest import WRITER, MonitorManifest, read_monitor_manifest
from layerguard.runtime.drift.parameters import PREFIX, monitor_faults
from layerguard.runtime.drift.projection import drift, project
from layerguard.runtime.drift.reading import DriftReading, TraitDrift
from layerguard.runtime.drift.regressor import predict
from layerguard.runtime.drift.states import evaluation_states
from layerguard.runtime.drift.step_aware import LIMIT, step_probability
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device
from layerguard.runtime.types import Array

_NAMED = 3
"""Traits that a reason names at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Monitor:
    """A verified monitor; ``id`` is the first 16 hex digits of its manifest's sha256."""

    manifest: MonitorManifest
    params: Mapping[str, Array]
    id: str

    @classmethod
    def load(cls, path: str | Path) -> "Monitor":
        """Read and verify the monitor in folder ``path``.

        Raises:
            BundleError: with every fault found.
        """
        folder = Path(path)
        return steadily(folder, lambda: _load(folder))

    def check(
        self,
        checkpoint: str | Path,
        *,
        step: int | None = None,
        device: Device = "cpu",
        threads: int = 0,
    ) -> DriftReading:
        """Read a checkpoint's bundle on the monitor's prompts and say how far it drifted.

        Args:
            checkpoint: folder of the bundle.
            step: training step that it was saved at; a step-aware monitor needs it.
            device: ``cpu`` or ``cuda``; never a silent CPU.
            threads: ONNX Runtime's threads within one operator; 0 lets it choose.

        Raises:
            BundleError: the bundle is faulty, or no checkpoint of the monitor's base model; every
                fault is listed.
            InputError: ``step`` is missing or below 1.
            MachineError: onnxruntime is missing or the device does not engage.
        """
        self._check_step(step)
        bundle = load_checkpoint(checkpoint, self.manifest.base, self.manifest.layer)
        backbone = Backbone(bundle, device, threads)
        states = evaluation_states(backbone, self.manifest.prompts, self.manifest.layer)
        return self.judge(states, step, checkpoint=bundle.manifest.model.id, bundle_id=bundle.id)

    def judge(
        self, states: Array, step: int | None = None, *, checkpoint: str = "", bundle_id: str = ""
    ) -> DriftReading:
        """The reading of a checkpoint whose states are known.

        Args:
            states: float [prompts, hidden], the state of the monitor's layer at the last token of
                each of its prompts, in order.
            step: as in ``check``.
            checkpoint: its name in the reading.
            bundle_id: its bundle's id in the reading.

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
        moved = drift(
            project(states, params["directions"]), params["base_projection"], params["base_norm"]
        )
        predicted = float(np.clip(predict(params, moved[None])[0], 0.0, 1.0))
        score, limit = predicted, self.manifest.threshold
        probability = None
        if self.manifest.step_aware:
            probability = float(step_probability(params, moved[None], np.array([step]))[0])
            score, limit = probability, LIMIT
        valid = bool(np.isfinite(moved).all()) and math.isfinite(predicted + score)
        alarm = not (valid and score <= limit)
        traits = self._traits(moved)
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
            reason=_reason(score, limit, traits, of_step=probability is not None, valid=valid),
            traits=traits,
        )

    def _check_step(self, step: int | None) -> None:
        if step is None and self.manifest.step_aware:
            raise InputError(
                "step: found none; this monitor is step-aware and expects the training step that "
                "the checkpoint was saved at (--step N)"
            )
        if step is not None and step < 1:
            raise InputError(f"step: found {step}; expected 1 or more, the base model being step 0")

    def _traits(self, moved: Array) -> tuple[TraitDrift, ...]:
        """Each trait beside the calibration checkpoints that were within the limit."""
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
                self.manifest.traits, moved.tolist(), bounds, strict=True
            )
        )


def _reason(
    score: float, limit: float, traits: Sequence[TraitDrift], *, of_step: bool, valid: bool
) -> str:
    if not valid:
        return "a state or score of this checkpoint is not finite, so nothing vouches for it"
    what = "probability of misalignment at this step" if of_step else "predicted misalignment"
    verdict = "within" if score <= limit else "above"
    outside = sorted((t for t in traits if t.moved), key=_excess, reverse=True)
    named = ", ".join(f"{t.name} towards {t.towards}" for t in outside[:_NAMED])
    moved = (
        f"beyond every aligned calibration checkpoint: {named}"
        if named
        else ("no trait beyond the aligned calibration checkpoints")
    )
    return f"{what} {100 * score:.1f} % is {verdict} {100 * limit:g} %; {moved}"


def _excess(trait: TraitDrift) -> float:
    """How far a trait lies outside the range of aligned checkpoints."""
    return max(trait.low - trait.drift, trait.drift - trait.high)


def _load(folder: Path) -> Monitor:
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
    return Monitor(manifest, params, hashlib.sha256(data).hexdigest()[:16])
