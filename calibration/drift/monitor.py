"""Fit a drift monitor from bundles of checkpoints, and write it."""

import hashlib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from tqdm import tqdm

from layerguard.calibration.defaults import PUBLISHED_TAU
from layerguard.calibration.drift.contrast import candidate_layers, read_contrast
from layerguard.calibration.drift.freeze import refuse_other_folder, write_monitor
from layerguard.calibration.drift.runs import check_support, load_checkpoints, read_runs, runs_bytes
from layerguard.calibration.drift.training import train
from layerguard.calibration.drift.traits import TraitFile, read_traits
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.drift import CheckpointMonitor
from layerguard.runtime.drift.base import Base
from layerguard.runtime.drift.manifest import (
    SCHEMA,
    CalibrationCard,
    MonitorManifest,
    TraitCard,
)
from layerguard.runtime.drift.states import evaluation_states
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class FittedMonitor:
    """A monitor that was written.

    Attributes:
        monitor: the monitor, loaded from its folder; its manifest records the fit.
        checkpoints_above: number of labelled checkpoints above its threshold.
    """

    monitor: CheckpointMonitor
    checkpoints_above: int


def fit_monitor(
    base: str | Path,
    runs: str | Path,
    out: str | Path,
    *,
    traits: str | Path | None = None,
    only: tuple[str, ...] | list[str] = (),
    layer: int | None = None,
    tau: float = PUBLISHED_TAU,
    weak_traits: bool = False,
    step_aware: bool = False,
    device: Device = "cpu",
    threads: int = 0,
) -> FittedMonitor:
    """Fit a drift monitor to labelled checkpoints of a base model.

    Args:
        base: folder of the base model's bundle.
        runs: JSONL of labelled checkpoints; relative bundle paths start at its folder.
        out: folder to write.
        traits: trait file in YAML; None for the project's own.
        only: traits to monitor, in order; empty for the paper's seven if the file has all of them,
            else every trait of the file.
        layer: state index to read, from 1; None for the one at 40 to 70 % of the depth that best
            separates held-out system prompts.
        tau: threshold on predicted misalignment, a share in (0, 1).
        weak_traits: continue although a probe does not separate the poles of three traits in four.
        step_aware: also fit the alarm for long runs.
        device: where the graphs run.
        threads: threads of one operator; 0 lets ONNX Runtime choose.

    Raises:
        InputError: a file cannot be read, ``out`` is not a monitor, or an argument has an invalid
            value.
        CalibrationError: the runs or traits do not suffice for a monitor.
        BundleError: a bundle is invalid.
    """
    out = Path(out)
    refuse_other_folder(out)
    trait_file = _traits(traits)
    chosen = trait_file.chosen(list(only))
    labelled = read_runs(Path(runs))
    check_support(labelled, tau, step_aware=step_aware)
    bundle = Bundle.load(Path(base))
    model = bundle.manifest.model
    layers = candidate_layers(model.total_layers, model.layers, layer)
    origin = Base.from_bundle(bundle)
    checkpoints = load_checkpoints(origin, labelled, max(layers))

    backbone = Backbone(bundle, device, threads)
    contrast = read_contrast(backbone, bundle, chosen, trait_file.questions, layers)
    probes = contrast.probe(list(chosen), weak=weak_traits)
    prompts = trait_file.prompts()

    def states(model_backbone: Backbone) -> Array:
        return evaluation_states(model_backbone, prompts, contrast.layer)

    progress = tqdm(checkpoints, desc="checkpoints", unit="checkpoint", disable=None)
    fitted = train(
        contrast.positive,
        contrast.negative,
        states(backbone),
        (states(Backbone(checkpoint, device, threads)) for checkpoint in progress),
        labelled,
        tau=tau,
        step_aware=step_aware,
    )
    manifest = MonitorManifest(
        schema=SCHEMA,
        kind="drift monitor",
        base=origin,
        layer=contrast.layer,
        traits=tuple(
            TraitCard(name, trait.positive_label, trait.negative_label, probes[name])
            for name, trait in chosen.items()
        ),
        prompts=prompts,
        threshold=tau,
        regressor=fitted.regressor,
        step_aware=step_aware,
        calibration=CalibrationCard(
            traits_sha256=trait_file.sha256(),
            runs_sha256=hashlib.sha256(runs_bytes(labelled)).hexdigest(),
            checkpoints=len(labelled),
            runs=len({row.run for row in labelled}),
            perturbations=tuple(sorted({row.perturbation for row in labelled})),
            separation={str(number): value for number, value in contrast.separation.items()},
            candidates=fitted.candidates,
        ),
        versions={},
        files={},
    )
    write_monitor(out, manifest, fitted.params)
    above = int(np.count_nonzero(fitted.params["calibration_rates"] > tau))
    return FittedMonitor(CheckpointMonitor.load(out), above)


def _traits(path: str | Path | None) -> TraitFile:
    if path is not None:
        return read_traits(Path(path))
    with as_file(files("layerguard.calibration") / "prompts" / "traits.yaml") as default:
        return read_traits(default)
