"""Which share of each source is called unfamiliar by a guard that was calibrated on Alpaca?

    python -m tests.truth.familiarity [smollm2] [minilm]

Layer, rank and pooling are fixed by the fit (``calibration/familiarity``); nothing here is tuned.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.calibration import familiarity
from layerguard.runtime.detectors import REGISTRY
from tests.truth.tables import keep_models
from tests.truth.traffic_sources import MODELS, REPORTED, states

TARGETS = (0.01, 0.05)
CALIBRATION = "alpaca (calibration)"


def main(models: Sequence[str]) -> None:
    """Print and keep the table."""
    lines = [line for model in models for line in _lines(model)]
    question = "Share of each source that is unfamiliar, in %; 300 Alpaca prompts"
    keep_models("familiarity", question, lines)


def _lines(model: str) -> Iterator[Mapping[str, Any]]:
    calibration = states(model, CALIBRATION).mean
    guards = {
        f"at {100 * target:g} %": REGISTRY["familiarity"].bind(
            familiarity.fit(calibration, target_fpr=target)
        )
        for target in TARGETS
    }
    for source in ("alpaca (other)", *REPORTED):
        layers = list(states(model, source).mean.swapaxes(0, 1))
        shares = {
            name: round(100 * float(np.mean([r.flagged for r in guard.score_pooled(layers)])), 1)
            for name, guard in guards.items()
        }
        yield {"model": model, "source": source, "rows": len(layers[0]), **shares}


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
