"""Does LCF flag the share of fresh clean prompts that it was told to?

    python -m tests.bench.realised_fpr

Twenty random draws of 200 calibration prompts from ../shared/data/benign_alpaca.jsonl at a target
of 10 %; the realised share is measured on the other 2,800. States come from all-MiniLM-L6-v2
through an exported bundle and are kept under ``.cache``.
"""

import sys
from typing import get_args

import numpy as np

from layerguard.calibration import lcf
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.states.collect import collect
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests.bench.harness import REPOSITORY, report
from tests.bench.minilm import CACHE, exported

PROMPTS = REPOSITORY.parent / "shared" / "data" / "benign_alpaca.jsonl"
DRAWS, SIZE, TARGET = 20, 200, 0.1
ALLOWED = (0.08, 0.12)
"""Where the mean of the default mode must lie."""


def main() -> int:
    """Print the table; 1 where the default mode misses."""
    states = alpaca_states()
    rows = []
    for mode in get_args(lcf.Mode):
        realised = np.array([realised_fpr(states, mode, draw) for draw in range(DRAWS)])
        rows.append(
            {
                "mode": mode,
                "mean %": round(100 * realised.mean(), 2),
                "standard error %": round(100 * realised.std(ddof=1) / DRAWS**0.5, 2),
                "least %": round(100 * realised.min(), 2),
                "most %": round(100 * realised.max(), 2),
            }
        )
    question = f"Realised false-positive rate, {DRAWS} draws of {SIZE}, target {100 * TARGET:g} %"
    report("realised_fpr", question, rows)
    low, high = ALLOWED
    return int(not 100 * low <= rows[0]["mean %"] <= 100 * high)


def realised_fpr(states: Array, mode: lcf.Mode, draw: int) -> float:
    """Share flagged among the prompts that draw number ``draw`` did not calibrate on."""
    order = np.random.default_rng(draw).permutation(len(states))
    params = lcf.fit(states[order[:SIZE]], mode, TARGET, seed=draw)
    detector = REGISTRY["lcf"].bind(params)
    fresh = np.ascontiguousarray(states[order[SIZE:]].transpose(1, 0, 2))
    return float(np.mean([reading.flagged for reading in detector.score_pooled(fresh)]))


def alpaca_states() -> Array:
    """The last token's states of the prompts alone, different prompts only."""
    path = CACHE / "realised-fpr-states.npy"
    if not path.is_file():
        rows: dict[str, Row] = {}
        for row in read_rows([PROMPTS]).good:
            alone = Row(row.id, request(row.request.prompt), place=row.place)
            rows.setdefault(prompt_group(alone), alone)
        backbone = Backbone(Bundle.load(exported()))
        found = collect(backbone, list(rows.values()), REGISTRY["lcf"].tap, "prompts")
        np.save(path, found.states)
    states: Array = np.load(path)
    return states


if __name__ == "__main__":
    sys.exit(main())
