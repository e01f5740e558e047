"""Calibrated toy bundles that flag some of the texts, and a hundred texts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from layerguard.calibration.guard.freeze import freeze
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.thresholds.guard_thresholds import Policy, set_thresholds
from layerguard.exporter.fused.graph import Design
from layerguard.exporter.fused.proof import feeds
from layerguard.runtime import Guard
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests import tiny, tiny_decoder

ALL = ("lcf", "siren", "weightwatch", "agent_siren", "familiarity", "span", "delta")
_TEXT = (
    "the garden was quiet before rain came over low hills and small boats lay still near river "
    "ignore all previous rules now It's 1234 don't ask again Тихий сад 雨 庭は静か ok 👍🏽 مطر"
)
_WORDS = _TEXT.split()


def texts(count: int, seed: int) -> list[str]:
    """Random texts of one to thirty words, all different."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choice(_WORDS, rng.integers(1, 31)))] = None
    return list(found)


FRESH = texts(100, 1)
"""Texts that were not used for calibration."""


def params(names: Sequence[str]) -> dict[str, dict[str, Array]]:
    """Parameters of these detectors, without saturation; each role has its own ranges."""
    mine = {name: tiny.params_of(name) for name in names}
    if "siren" in mine:
        mine["siren"] = {
            name: value / 6 if name.startswith("weight_") else value
            for name, value in mine["siren"].items()
        }
    if "weightwatch" in mine:
        reach = np.array([[0.7], [1.0], [1.3], [0.5]], np.float32)
        mine["weightwatch"] |= {name: mine["weightwatch"][name] * reach for name in ("low", "high")}
    return mine


def calibrated(
    folder: Path,
    names: Sequence[str] = ALL[:3],
    policy: str = "any",
    shadow: Sequence[str] = (),
    target: float = 0.3,
    **layout: object,
) -> Path:
    """A decoder's bundle that flags about a share ``target`` of new texts."""
    if "agent_siren" in names:
        layout.setdefault("chat_template", "{% for m in messages %}{{ m.content }}\n{% endfor %}")
    path = tiny_decoder.make_bundle(folder, params(names), **{"decode": False, **layout})  # type: ignore[arg-type]
    return recalibrated(path, policy, shadow, target)


def recalibrated(
    path: Path, policy: str = "any", shadow: Sequence[str] = (), target: float = 0.3, seed: int = 2
) -> Path:
    """The bundle with thresholds set on clean texts of this seed."""
    guard = Guard.load(path, threads=1)
    names = sorted(guard.bundle.manifest.detectors)
    rows = [Row(str(i), request(text), label=0) for i, text in enumerate(texts(80, seed))]
    verdicts = guard.check_requests([row.request for row in rows], counted=False)
    groups = [prompt_group(row) for row in rows]
    scores = {
        name: {g: v.readings[name].score for g, v in zip(groups, verdicts, strict=True)}
        for name in names
    }
    thresholds = set_thresholds(scores, rows, Policy.over(names, policy, shadow, target))
    cards = {
        name: replace(card, method="cross-fit")
        for name, card in guard.bundle.manifest.detectors.items()
    }
    bundle = replace(guard.bundle, manifest=replace(guard.bundle.manifest, detectors=cards))
    freeze(bundle, guard.backbone, [], thresholds)
    return path


def fed(guard: Guard, some: Sequence[str]) -> dict[str, Array]:
    """The inputs of the bundle's fused graph for the texts, in one batch."""
    given = feeds(guard, Design.of(guard.bundle), [request(text) for text in some])
    assert given is not None
    return given


def expected(guard: Guard, some: Sequence[str]) -> Mapping[str, Array]:
    """The outputs that the fused graph should give, computed by the runtime."""
    verdicts = guard.check_requests([request(text) for text in some], counted=False)
    found = {"flagged": np.array([verdict.flagged for verdict in verdicts])}
    for name in guard.bundle.manifest.detectors:
        readings = [verdict.readings[name] for verdict in verdicts]
        found[f"{name}_score"] = np.array([reading.score for reading in readings])
        found[f"{name}_p_value"] = np.array([reading.p_value for reading in readings])
    if verdicts[0].p_value is not None:
        found["p_value"] = np.array([verdict.p_value for verdict in verdicts])
    return found


def load(path: Path) -> Guard:
    """A guard with one thread."""
    return Guard.load(path, threads=1)
