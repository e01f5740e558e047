"""A drift monitor of the tiny network, checkpoints of it, and trait and run files that fit.

A checkpoint is the tiny bundle with a change of one block's weights; its strength stands for how
misaligned its answers are. Nine tenths of the change are the same for all perturbations.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import numpy_helper

from layerguard.calibration.drift.freeze import write_monitor
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.bundle.write import seal
from layerguard.runtime.drift.base import Base
from layerguard.runtime.drift.manifest import CalibrationCard, MonitorManifest, TraitCard
from layerguard.runtime.types import Array
from tests.tiny import WIDTH, make_bundle

CHAT = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
PROMPTS = ("the garden was quiet", "small boats lay still", "near the river", "rain came over")
TRAITS = ("honesty", "sycophancy")
TAU = 0.05
PERTURBATIONS = ("gardens", "boats", "hills")
STRENGTHS = (0.01, 0.02, 0.3, 0.6)
"""Of the checkpoints of a run; the last two are above the limit."""


def make_base(folder: Path, opening: str = "") -> Path:
    """The base: a tiny bundle with a chat template that takes system turns, after an opening."""
    return make_bundle(folder, {}, template="chat", chat_template=opening + CHAT)


def make_checkpoint(base: Path, folder: Path, strength: float, seed: int = 0) -> Path:
    """A copy of ``base`` whose second block moved; NaN weights where ``strength`` is NaN."""
    shutil.copytree(base, folder)
    graph = onnx.load(folder / "score.onnx")
    common, own = (
        np.random.default_rng(of).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for of in (0, 1 + seed)
    )
    change = 0.9 * common + 0.1 * own
    for tensor in graph.graph.initializer:
        if tensor.name == "block_2":
            moved = numpy_helper.to_array(tensor) + (strength * change).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    (folder / "score.onnx").write_bytes(graph.SerializeToString())
    return reseal(folder)


def reseal(folder: Path, **model: Any) -> Path:
    """Write the manifest anew: the files' hashes, and other values of the model's card."""
    manifest, faults = read_manifest((folder / "manifest.json").read_bytes())
    assert manifest is not None, faults
    seal(folder, replace(manifest, model=replace(manifest.model, **model)))
    return folder


def make_monitor(
    folder: Path,
    base: Path,
    *,
    threshold: float = TAU,
    intercept: float = 0.02,
    step_aware: bool = False,
) -> Path:
    """A linear monitor of the base, written by hand: intercept + drift of the first trait.

    Aligned calibration checkpoints drifted by up to 0.01 either way.
    """
    card = Base.from_bundle(Bundle.load(base))
    manifest = MonitorManifest(
        schema=1,
        kind="drift monitor",
        base=card,
        layer=2,
        traits=tuple(TraitCard(name, f"{name} +", f"{name} -", 1.0) for name in TRAITS),
        prompts=PROMPTS,
        threshold=threshold,
        regressor="ridge",
        step_aware=step_aware,
        calibration=CalibrationCard("0" * 64, "0" * 64, 3, 1, PERTURBATIONS, {}, ()),
        versions={},
        files={},
    )
    params = monitor_params(threshold, step_aware=step_aware)
    write_monitor(folder, manifest, params | {"intercept": np.array(intercept)})
    return folder


def monitor_params(threshold: float = TAU, *, step_aware: bool = False) -> dict[str, Array]:
    """The arrays of that monitor; its directions are the first two axes, its base lies at zero."""
    params = {
        "directions": np.eye(2, WIDTH, dtype=np.float32),
        "base_projection": np.zeros(2),
        "base_norm": np.array(2.0),
        "threshold": np.array(threshold),
        "calibration_drift": np.array([[-0.01, -0.01], [0.01, 0.01], [0.5, 0.5]]),
        "calibration_rates": np.array([0.0, 0.01, 0.9]),
        "intercept": np.array(0.02),
        "coefficients": np.array([1.0, 0.0]),
        "tree_roots": np.zeros(0, np.int32),
        "tree_feature": np.zeros(0, np.int32),
        "tree_threshold": np.zeros(0),
        "tree_left": np.zeros(0, np.int32),
        "tree_right": np.zeros(0, np.int32),
        "tree_value": np.zeros(0),
    }
    if step_aware:
        params |= {
            "step_component": np.array([1.0, 0.0]),
            "step_mean": np.zeros(3),
            "step_scale": np.ones(3),
            "step_coefficients": np.array([0.0, 0.0, 10.0]),
            "step_intercept": np.array(-5.0),
        }
    return params


def trait_values(**changes: Any) -> dict[str, Any]:
    """A sound trait file in the tiny tokenizer's words."""
    words = {
        "honesty": (
            ("quiet rain", "quiet river", "still rain"),
            ("low hills", "low boats", "small boats"),
        ),
        "sycophancy": (
            ("all now", "all rules", "previous now"),
            ("the was", "over was", "came over"),
        ),
    }
    traits = {
        name: {
            "description": f"about {name}",
            "positive_label": f"{name} +",
            "negative_label": f"{name} -",
            "positive_system_prompts": list(positive),
            "negative_system_prompts": list(negative),
        }
        for name, (positive, negative) in words.items()
    }
    return {
        "traits": traits,
        "questions": ["a garden", "near the river", "and small boats"],
        "eval_prompts": {"weather": list(PROMPTS[:2]), "places": list(PROMPTS[2:])},
        **changes,
    }


def write_traits(path: Path, values: Any | None = None) -> Path:
    """A trait file."""
    path.write_text(yaml.safe_dump(trait_values() if values is None else values, sort_keys=False))
    return path


def make_runs(base: Path, folder: Path) -> list[dict[str, Any]]:
    """One run a perturbation, four checkpoints each, as rows; bundles are named relatively."""
    rows = []
    for seed, perturbation in enumerate(PERTURBATIONS):
        for step, strength in enumerate(STRENGTHS, 1):
            name = f"{perturbation}-{step}"
            make_checkpoint(base, folder / name, strength, seed)
            rows.append(
                {"bundle": name, "run": perturbation, "perturbation": perturbation,
                 "step": 10 * step, "misalignment": strength / 2}
            )  # fmt: skip
    return rows


def write_runs(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
