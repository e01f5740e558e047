"""Unfamiliar texts in the graph: the most cautious thresholds, as the runtime has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from layerguard.calibration.guard.freeze import freeze
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.thresholds.guard_thresholds import Policy, set_thresholds
from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests import tiny_decoder
from tests.fused.bundles import FRESH, expected, fed, load, params, texts
from tests.fused.graphs import agree, run

_NAMES = ["familiarity", "lcf", "siren"]


def test_an_unfamiliar_text_has_the_largest_thresholds(tmp_path: Path) -> None:
    """Flags equal the runtime's; with the thresholds of all traffic some would differ."""
    path = tiny_decoder.make_bundle(tmp_path / "bundle", params(_NAMES), decode=False)
    guard = load(path)
    some = texts(160, 5)
    verdicts = guard.check_requests([request(text) for text in some], counted=False)
    order = np.argsort([verdict.readings["lcf"].score for verdict in verdicts])
    domain_of = {int(i): "calm" if rank < 80 else "loud" for rank, i in enumerate(order)}
    rows = [Row(str(i), request(text), domain=domain_of[i]) for i, text in enumerate(some)]
    scores = {
        name: {
            prompt_group(row): verdict.readings[name].score
            for row, verdict in zip(rows, verdicts, strict=True)
        }
        for name in _NAMES
    }
    thresholds = set_thresholds(scores, rows, Policy.over(_NAMES, "any", (), 0.3))
    assert thresholds.card.enforced == ("lcf", "siren")
    cards = {
        name: replace(card, method="cross-fit")
        for name, card in guard.bundle.manifest.detectors.items()
    }
    bundle = replace(guard.bundle, manifest=replace(guard.bundle.manifest, detectors=cards))
    freeze(bundle, guard.backbone, [], thresholds)
    fuse(path, threads=1)
    guard = load(path)
    wanted = expected(guard, FRESH)
    found = run(path, fed(guard, FRESH))
    assert np.array_equal(found["flagged"], wanted["flagged"])
    agree({"familiarity_score": found["familiarity_score"]},
          {"familiarity_score": wanted["familiarity_score"]})  # fmt: skip
    unfamiliar = found["familiarity_score"] > guard.bundle.params["familiarity"]["threshold"]
    pooled = [
        found[f"{name}_score"] > guard.bundle.params[name]["threshold"] for name in ("lcf", "siren")
    ]
    changed = np.logical_or(*pooled) & ~found["flagged"]
    assert changed.any()
    assert not (changed & ~unfamiliar).any()
