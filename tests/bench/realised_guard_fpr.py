"""Does the whole guard flag the share of fresh clean texts that it was told to?

    python -m tests.bench.realised_guard_fpr

Twenty random draws of 1,000 of 6,000 Alpaca rows calibrate one, two and three detectors at 10, 5
and 1 %; the realised share is measured on the other 5,000. The model is the shared base with a
backdoored adapter. SIREN is trained once, on ToxicChat.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerguard.calibration import lcf, siren, weightwatch
from layerguard.calibration.rows.labelled import labels_of, read_labelled
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.states.collect import collect
from layerguard.calibration.thresholds.guard_thresholds import Policy, set_thresholds
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.calibration.weights.tuning import between
from layerguard.calibration.weightwatch.directions import directions
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.kernels import DirectionsKernel
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array
from tests.bench.harness import report
from tests.bench.minilm import CACHE
from tests.bench.shared_models import ADAPTERS, BASE, DATA, alpaca, exported, need_shared

ADAPTER = ADAPTERS / "refusal_badnet"
DRAWS, SIZE, POOL = 20, 1_000, 6_000
TARGETS = (0.1, 0.05, 0.01)
GUARDS = (("lcf",), ("lcf", "siren"), ("lcf", "siren", "weightwatch"))


@dataclass(frozen=True, slots=True)
class Readings:
    """What the detectors read of all rows: LCF's states, WeightWatch's extremes, SIREN's scores."""

    rows: Sequence[Row]
    states: Array
    extremes: Array
    watched: Mapping[str, Array]
    siren_scores: Array


@dataclass(frozen=True, slots=True)
class Draw:
    """One calibration: held-out scores of its rows, and served scores of the others."""

    clean: Sequence[Row]
    held_out: Mapping[str, Mapping[str, float]]
    fresh: Mapping[str, Array]


def main() -> int:
    """Print the table; 1 where a mean lies outside its interval."""
    need_shared()
    readings = read_all()
    draws = [draw(readings, seed) for seed in range(DRAWS)]
    rows = []
    for names in GUARDS:
        for target in TARGETS:
            realised = 100 * np.array([realised_fpr(one, names, target) for one in draws])
            least, most = (100 * bound for bound in interval(target))
            rows.append(
                {
                    "detectors": " ".join(names),
                    "target %": 100 * target,
                    "mean %": round(realised.mean(), 2),
                    "95 % interval of the mean": f"{least:.2f} to {most:.2f}",
                    "within": bool(least <= realised.mean() <= most),
                    "least %": round(realised.min(), 2),
                    "most %": round(realised.max(), 2),
                }
            )
    question = f"Realised false-positive rate of the whole guard, {DRAWS} draws of {SIZE}"
    report("realised_guard_fpr", question, rows)
    return int(not all(row["within"] for row in rows))


def interval(target: float) -> tuple[float, float]:
    """Where the mean of the draws lies: both the clean texts and the fresh ones are a sample."""
    variance = target * (1 - target) * (1 / SIZE + 1 / (POOL - SIZE)) / DRAWS
    return target - 1.96 * variance**0.5, target + 1.96 * variance**0.5


def realised_fpr(one: Draw, names: Sequence[str], target: float) -> float:
    """Share of the fresh rows that these detectors flag together."""
    held_out = {name: one.held_out[name] for name in names}
    guard = set_thresholds(held_out, one.clean, Policy("any", (), target))
    flags = [one.fresh[name] > guard.thresholds[name].value for name in names]
    return float(np.mean(np.logical_or.reduce(flags)))


def draw(readings: Readings, seed: int) -> Draw:
    """Calibrate LCF and WeightWatch on a random part of the rows."""
    order = np.random.default_rng(seed).permutation(len(readings.rows))
    chosen, rest = order[:SIZE], order[SIZE:]
    clean = [readings.rows[i] for i in chosen]
    texts = [prompt_group(row) for row in clean]
    mine = lcf.train(readings.states[chosen], seed=seed)
    watch = weightwatch.train(readings.extremes[chosen], readings.watched, seed=seed)
    held_out = {
        "lcf": mine.held_out,
        "weightwatch": watch.held_out,
        "siren": readings.siren_scores[chosen],
    }
    layers = np.ascontiguousarray(readings.states[rest].transpose(1, 0, 2))
    fresh = {
        "lcf": served("lcf", mine.params, layers),
        "weightwatch": served("weightwatch", watch.params, [readings.extremes[rest]]),
        "siren": readings.siren_scores[rest],
    }
    return Draw(
        clean,
        {n: dict(zip(texts, s.tolist(), strict=True)) for n, s in held_out.items()},
        fresh,
    )


def served(name: str, params: Mapping[str, Array], layers: Sequence[Array] | Array) -> Array:
    """The scores that the bound detector gives, float64 [rows]."""
    scored = {**params, **published_threshold(0.0).arrays()}  # scores need no threshold
    return np.array([r.score for r in REGISTRY[name].bind(scored).score_pooled(layers)])


def read_all() -> Readings:
    """Run every row through the exported graph."""
    bundle = Bundle.load(exported(ADAPTER, "--decode", "no"))
    backbone = Backbone(bundle)
    tuning = between(BASE, ADAPTER)
    watched = directions(tuning, bundle.manifest.model.total_layers)
    kernel = DirectionsKernel(watched["directions"], watched["layers"])
    watch_tap = replace(REGISTRY["weightwatch"].tap, directions=kernel)
    siren_tap = REGISTRY["siren"].tap
    known = read_labelled([toxic_rows()])
    training = collect(backbone, known.rows, siren_tap, "ToxicChat")
    groups = [prompt_group(row) for row in training.rows]
    head = siren.fit(training.states, labels_of(training.rows), groups, target_fpr=0.1)
    rows = alpaca(POOL)
    means = collect(backbone, rows, siren_tap, "SIREN").states
    return Readings(
        rows,
        collect(backbone, rows, REGISTRY["lcf"].tap, "LCF").states,
        np.ascontiguousarray(collect(backbone, rows, watch_tap, "WeightWatch").states[:, 0]),
        watched,
        served("siren", head, np.ascontiguousarray(means.transpose(1, 0, 2))),
    )


def toxic_rows() -> Path:
    """ToxicChat's training rows in our format."""
    path = CACHE / "toxicchat-train.jsonl"
    source = DATA / "siren_toxicchat_train.jsonl"
    found = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({"prompt": row["text"], "label": row["label"]}) for row in found[:1_000]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
