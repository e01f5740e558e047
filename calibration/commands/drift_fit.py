"""Fit a drift monitor: does a checkpoint of this base model drift into misalignment?

BASE is the base model's bundle. --runs are checkpoints of it, each an exported bundle with the
share of its answers that were judged misaligned, one JSON object a line:

    {"bundle": PATH, "run": ID, "perturbation": NAME, "step": N, "misalignment": SHARE}

--traits are contrastive system prompts, questions and evaluation prompts in YAML; without it the
project's own. Directions in the base's residual stream are taken from them, the checkpoints'
drift along these is measured, and the regressor that predicts perturbations best which it never
saw (random forest, gradient boosting, ridge) is frozen into the monitor. A monitor holds for its
base model only. All states come through ONNX, as they will when checkpoints are checked.
"""

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from tqdm import tqdm

from layerguard.calibration.drift.contrast import candidate_layers, read_contrast
from layerguard.calibration.drift.fit import PUBLISHED_TAU, Trained, train
from layerguard.calibration.drift.freeze import refuse_other_folder, write_monitor
from layerguard.calibration.drift.runs import check_support, load_checkpoints, read_runs, runs_bytes
from layerguard.calibration.drift.traits import TraitFile, read_traits
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import options
from layerguard.runtime.cli.table import render
from layerguard.runtime.drift import Monitor
from layerguard.runtime.drift.base import Base
from layerguard.runtime.drift.manifest import (
    SCHEMA,
    CalibrationCard,
    MonitorManifest,
    TraitCard,
)
from layerguard.runtime.drift.states import evaluation_states
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.types import Array


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help="bundle of the base model")
    add(
        "--runs",
        type=Path,
        required=True,
        metavar="ROWS",
        help="JSONL of labelled checkpoints; relative bundle paths start at its folder",
    )
    add("-o", "--out", type=Path, required=True, metavar="MONITOR", help="folder to write")
    add("--traits", type=Path, metavar="YAML", help="trait file (default: the project's own)")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="TRAIT",
        help="traits to monitor, in order (default: the paper's seven where the file has them all, "
        "else every trait of the file)",
    )
    add(
        "--layer",
        type=int,
        metavar="N",
        help="state index to read, 1 being the output of the first block (default: the one at 40 "
        "to 70 %% of the depth that best tells system prompts apart which it never saw)",
    )
    add(
        "--tau",
        type=float,
        default=PUBLISHED_TAU,
        metavar="SHARE",
        help="limit on predicted misalignment (default: 0.05, as first published)",
    )
    add(
        "--weak-traits",
        action="store_true",
        help="go on where a probe does not tell the poles of three traits in four apart, as it "
        "should: the drift may still foretell misalignment, but the traits' names mean little",
    )
    add(
        "--step-aware",
        action="store_true",
        help="also fit the alarm for long runs; the runs must hold a benign one longer than all "
        "that go wrong, and each check will need --step",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Fit, freeze and print what was found."""
    refuse_other_folder(arguments.out)
    trait_file = _traits(arguments.traits)
    traits = trait_file.chosen(arguments.only)
    runs = read_runs(arguments.runs)
    check_support(runs, arguments.tau, step_aware=arguments.step_aware)
    bundle = Bundle.load(arguments.base)
    model = bundle.manifest.model
    layers = candidate_layers(model.total_layers, model.layers, arguments.layer)
    base = Base.of(bundle)
    checkpoints = load_checkpoints(base, runs, max(layers))

    session = (arguments.device, arguments.threads)
    backbone = Backbone(bundle, *session)
    contrast = read_contrast(backbone, bundle, traits, trait_file.questions, layers)
    probes = contrast.probe(list(traits), weak=arguments.weak_traits)
    prompts = trait_file.prompts()

    def states(of: Backbone) -> Array:
        return evaluation_states(of, prompts, contrast.layer)

    progress = tqdm(checkpoints, desc="checkpoints", unit="checkpoint", disable=None)
    trained = train(
        contrast.positive,
        contrast.negative,
        states(backbone),
        (states(Backbone(checkpoint, *session)) for checkpoint in progress),
        runs,
        tau=arguments.tau,
        step_aware=arguments.step_aware,
    )
    manifest = MonitorManifest(
        schema=SCHEMA,
        kind="drift monitor",
        base=base,
        layer=contrast.layer,
        traits=tuple(
            TraitCard(name, trait.positive_label, trait.negative_label, probes[name])
            for name, trait in traits.items()
        ),
        prompts=prompts,
        threshold=arguments.tau,
        regressor=trained.regressor,
        step_aware=arguments.step_aware,
        calibration=CalibrationCard(
            traits_sha256=trait_file.sha256(),
            runs_sha256=hashlib.sha256(runs_bytes(runs)).hexdigest(),
            checkpoints=len(runs),
            runs=len({row.run for row in runs}),
            perturbations=tuple(sorted({row.perturbation for row in runs})),
            separation={str(layer): value for layer, value in contrast.separation.items()},
            candidates=trained.candidates,
        ),
        versions={},
        files={},
    )
    write_monitor(arguments.out, manifest, trained.params)
    print("\n".join(_lines(Monitor.load(arguments.out), trained)))
    print(f"wrote {arguments.out}")
    return 0


def _traits(path: Path | None) -> TraitFile:
    if path is not None:
        return read_traits(path)
    with as_file(files("layerguard.calibration") / "prompts" / "traits.yaml") as own:
        return read_traits(own)


def _lines(monitor: Monitor, trained: Trained) -> Iterator[str]:
    manifest = monitor.manifest
    card = manifest.calibration
    choice = ", ".join(f"{layer}: {value:.2f}" for layer, value in card.separation.items())
    how = f"chosen by held-out separation ({choice})" if choice else "as asked"
    above = sum(trained.params["calibration_rates"] > manifest.threshold)
    yield f"monitor  {monitor.id} of {manifest.base.model.id} ({manifest.base.bundle_id})"
    yield f"layer    state {manifest.layer} of {manifest.base.model.total_layers}, {how}"
    yield (
        f"traits   {', '.join(f'{t.name} {t.probe_accuracy:.2f}' for t in manifest.traits)} "
        "(probe accuracy)"
    )
    yield (
        f"runs     {card.runs} with {card.checkpoints} checkpoints, {above} above tau "
        f"{100 * manifest.threshold:g} %, of {len(card.perturbations)} perturbations"
    )
    header = ["leave one perturbation out", "balanced accuracy", "AUROC", "FNR", "FPR"]
    rows = [
        [
            c.regressor + (" (frozen)" if c.regressor == manifest.regressor else ""),
            f"{100 * c.balanced_accuracy:.1f} %",
            f"{c.auroc:.3f}",
            f"{100 * c.false_negative_rate:.1f} %",
            f"{100 * c.false_positive_rate:.1f} %",
        ]
        for c in card.candidates
    ]
    yield ""
    yield render(header, rows)
    yield ""
    if manifest.step_aware:
        yield "alarm    step-aware: each check needs --step"
