"""Detectors of random parameters for a model of any size: they flag nothing, and cost what real do.

Scores are of ordinary size, so that a difference in the states shows in them.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layerguard.runtime import Bundle
from layerguard.runtime.bundle.manifest import DetectorCard
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.write import replacing
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import Array
from tests.tiny import add_canaries

Params = dict[str, dict[str, Array]]
_RANKS = 20
_THRESHOLD = 1e9


def make_params(layers: int, width: int) -> Params:
    """LCF, SIREN, span and WeightWatch for a model of that many blocks and that width."""
    return {
        "lcf": _lcf(layers, width),
        "siren": _siren(layers, width),
        "span": _span(layers, width),
        "weightwatch": _weightwatch(layers, width),
    }


def make_delta(places: Sequence[tuple[int, int]]) -> dict[str, Array]:
    """The detector of added lengths, which only some graphs give: block and part of each matrix."""
    rng = np.random.default_rng(4)
    return {
        "layers": np.array([layer for layer, _ in places], np.int32),
        "parts": np.array([part for _, part in places], np.uint8),
        "centre": rng.normal(1, 1, len(places)).astype(np.float32),
        "scale": rng.uniform(0.1, 2, len(places)).astype(np.float32),
        **_calibrated(),
    }


def freeze(bundle: Path, folder: Path, params: Params) -> Path:
    """A copy of ``bundle`` at ``folder`` with these detectors and no others."""
    manifest = Bundle.load(bundle).manifest
    with replacing(folder) as temporary:
        shutil.copytree(bundle, temporary, dirs_exist_ok=True)
        arrays = {f"{name}/{key}": v for name, mine in params.items() for key, v in mine.items()}
        write_npz(temporary / "detectors.npz", arrays)
        cards = {name: _card(name) for name in params}
        add_canaries(temporary, replace(manifest, detectors=cards, canaries=(), decision=None))
    return folder


def _card(name: str) -> DetectorCard:
    tap = REGISTRY[name].tap
    return DetectorCard(
        method="random", view=tap.view, pooling=tap.pooling, semantics=tap.semantics,
        threshold=_THRESHOLD, target_fpr=0.01, fpr_interval=(0.0, 1.0), n=200, seed=0,
        calibration_sha256="0" * 64, settings={},
    )  # fmt: skip


def _calibrated() -> dict[str, Array]:
    return {
        "threshold": np.array(_THRESHOLD),
        "clean_scores": np.arange(200.0),
        "target_fpr": np.array(0.01),
        "fpr_interval": np.array([0.0, 1.0]),
    }


def _lcf(layers: int, width: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "mu": rng.normal(size=(layers, width)).astype(np.float32),
        "sigma": rng.uniform(0.5, 2, (layers, width)).astype(np.float32),
        "score_mean": np.full(layers, width**0.5),
        "score_scale": np.ones(layers),
        "centre": np.zeros(layers),
        "precision": np.eye(layers),
        **_calibrated(),
    }


def _siren(layers: int, width: int) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    inputs = layers * width
    return {
        "layers": np.arange(1, layers + 1, dtype=np.int32),
        "neuron_offsets": np.arange(layers + 1, dtype=np.int32) * width,
        "neurons": np.tile(np.arange(width, dtype=np.int32), layers),
        "alpha": np.linspace(0.1, 1, layers).astype(np.float32),
        "weight_0": (rng.normal(size=(64, inputs)) / inputs**0.5).astype(np.float32),
        "bias_0": rng.normal(size=64).astype(np.float32),
        "weight_1": (rng.normal(size=(2, 64)) / 8).astype(np.float32),
        "bias_1": np.zeros(2, np.float32),
        **_calibrated(),
    }


def _span(layers: int, width: int) -> dict[str, Array]:
    """A probe of two states, with a window of twelve tokens."""
    rng = np.random.default_rng(3)
    read = sorted({max(1, layers // 2), layers})
    return {
        "layers": np.array(read, np.int32),
        "weights": (rng.normal(size=(len(read), width)) / width**0.5).astype(np.float32),
        "bias": np.array(0.0),
        "window": np.array(12, np.int32),
        **_calibrated(),
    }


def _weightwatch(layers: int, width: int) -> dict[str, Array]:
    """Twenty directions of either part after each block."""
    rng = np.random.default_rng(2)
    states, parts, ranks = (
        places.ravel()
        for places in np.meshgrid(
            np.arange(1, layers + 1), np.arange(2), np.arange(_RANKS), indexing="ij"
        )
    )
    directions = rng.normal(size=(len(states), width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ranges = np.full((4, len(states)), 0.1, np.float32)
    return {
        "directions": directions.astype(np.float32),
        "layers": states.astype(np.int32),
        "parts": parts.astype(np.uint8),
        "ranks": ranks.astype(np.int32),
        "singular_values": np.ones(len(states), np.float32),
        "low": -ranges,
        "high": ranges,
        "scale": np.full_like(ranges, 0.02),
        "roles_seen": np.ones(4, bool),
        **_calibrated(),
    }
