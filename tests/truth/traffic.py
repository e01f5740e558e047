"""Drift of traffic: texts until the alarm on real switches, and false alarms on simulated texts.

    python -m tests.truth.traffic [smollm2] [minilm] [--simulated]

LCF alone decides, calibrated on one source. Its p-values of other texts of that source are followed
by those of another source, in ``ORDERS`` random orders. The simulated guards have their own clean
texts, and their traffic is exchangeable with them. In the last table, a share of flagged texts
lasts for ``LASTS`` texts after ``QUIET`` quiet ones, and then returns to the target;
``--simulated`` prints only what needs no model.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.calibration.lcf.estimation import train
from layerguard.calibration.thresholds.conformal import fpr_interval
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.decision.betting import ALPHA
from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.decision.flag_rate import FlagRateMonitor
from layerguard.runtime.decision.traffic import TrafficMartingale, TrafficMonitor
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import Array
from tests.truth.tables import keep, keep_models
from tests.truth.traffic_sources import MODELS, states

TARGET, ORDERS, SEED = 0.05, 20, 0
GUARDS, TEXTS, CLEAN = 100, 10_000, 300
QUIET, LASTS, SHARES = 1_000, 1_000, (0.1, 0.15, 0.5, 1.0)
ENGLISH, GERMAN = "deepset benign, English", "deepset benign, German"


def main(models: Sequence[str]) -> None:
    """Print and keep both tables."""
    if models:
        lines = [line for model in models for line in _switches(model)]
        question = f"Texts of the new source until the alarm, median of {ORDERS} orders; target 5 %"
        keep_models("traffic_switches", question, lines)
    question = f"False alarms over {GUARDS} simulated guards of {CLEAN} clean texts"
    keep("traffic_false_alarms", question, [_simulated()])
    question = f"Flag rate: when an alarm begins and ends, median of {ORDERS} runs; target 5 %"
    keep("traffic_returns", question, [_returns(share) for share in SHARES])


def _switches(model: str) -> Iterator[Mapping[str, Any]]:
    alpaca = states(model, "alpaca (calibration)").last
    other, dolly = states(model, "alpaca (other)").last, states(model, "dolly").last
    english, german = states(model, ENGLISH).last, states(model, GERMAN).last
    clean, quiet = english[:60], english[60:]
    yield _switch(model, "Alpaca to Dolly", alpaca, other, dolly)
    yield _switch(model, "deepset, English to German", clean, quiet, german)
    yield _switch(model, "no switch: Alpaca", alpaca, other[:50], other[50:])


def _switch(model: str, name: str, clean: Array, quiet: Array, new: Array) -> Mapping[str, Any]:
    fitted = train(clean, "cross-fit", TARGET, SEED, None)
    blocks = Blocks(fitted.held_out[:, None], "any")
    bound = REGISTRY["lcf"].bind({**fitted.params, **published_threshold(0.0).arrays()})

    def p_values(some: Array) -> list[float]:
        readings = bound.score_pooled(list(some.swapaxes(0, 1)))
        return [blocks.p_value([reading.score]) for reading in readings]

    before, after, rng = p_values(quiet), p_values(new), np.random.default_rng(SEED)
    delays = [
        _delays(rng.permutation(before).tolist(), rng.permutation(after).tolist(), len(clean))
        for _ in range(ORDERS)
    ]
    traffic, flags = (np.array(column, dtype=float) for column in zip(*delays, strict=True))
    return {
        "model": model,
        "switch": name,
        "clean": len(clean),
        "quiet": len(quiet),
        "new": len(new),
        "flagged before %": _per_cent(before, len(clean)),
        "flagged after %": _per_cent(after, len(clean)),
        "martingale: alarms": f"{np.isfinite(traffic).sum()} of {ORDERS}",
        "delay": _median(traffic),
        "flag rate: alarms": f"{np.isfinite(flags).sum()} of {ORDERS}",
        "flag rate: delay": _median(flags),
    }


def _delays(before: list[float], after: list[float], clean: int) -> tuple[float, float]:
    """The texts until the alarm of the martingale and of the flag-rate monitor.

    Infinite without an alarm; not positive if it came before the switch.
    """
    traffic = TrafficMonitor({None: clean})
    low, high = fpr_interval(clean, TARGET).tolist()
    flags = FlagRateMonitor({None: (low, high)})
    found = [np.inf, np.inf]
    for number, p_value in enumerate([*before, *after], 1 - len(before)):
        traffic.update(p_value, None)
        flags.update(flagged=_flagged(p_value, clean))
        for place, alarm in enumerate((bool(traffic.drifting), bool(flags.drifting))):
            if alarm:
                found[place] = min(found[place], number)
    return found[0], found[1]


def _flagged(p_value: float, clean: int) -> bool:
    return round(p_value * (clean + 1)) <= allowed(clean, TARGET)


def _per_cent(p_values: list[float], clean: int) -> float:
    return round(100 * float(np.mean([_flagged(p_value, clean) for p_value in p_values])), 1)


def _median(delays: Array) -> float | None:
    """The median delay; None if more than half of the orders give no alarm."""
    middle = float(np.median(delays))
    return middle if np.isfinite(middle) else None


def _simulated() -> Mapping[str, Any]:
    rng, of_flags = np.random.default_rng(SEED), np.random.default_rng(SEED)
    largest, flag_alarms = [], 0
    low, high = fpr_interval(CLEAN, TARGET).tolist()
    for _ in range(GUARDS):
        clean = np.sort(rng.random(CLEAN))
        martingale = TrafficMartingale(CLEAN)
        for block in np.searchsorted(clean, rng.random(TEXTS)).tolist():
            martingale.update((block + 1) / (CLEAN + 1))
        largest.append(martingale.e_value)
        flags = FlagRateMonitor({None: (low, high)})
        for flagged in (of_flags.random(TEXTS) < of_flags.uniform(low, high)).tolist():
            flags.update(flagged=flagged)
        flag_alarms += flags.sources[None].bets.alarms
    wealth = np.array(largest)
    return {
        "texts": GUARDS * TEXTS,
        "guards": GUARDS,
        "alarms of one source": int((wealth * ALPHA >= 2).sum()),
        "wealth ever 20 (at most 5 % allowed)": int((wealth >= 20).sum()),
        "largest wealth": round(float(wealth.max()), 2),
        "alarms of the flag rate": flag_alarms,
    }


def _returns(share: float) -> Mapping[str, Any]:
    """The alarm of the flag rate when a share of flagged texts comes, lasts, and goes."""
    rng = np.random.default_rng(SEED)
    begins, ends, drifting, alarms = [], [], [], []
    for _ in range(ORDERS):
        monitor = FlagRateMonitor({None: tuple(fpr_interval(CLEAN, TARGET).tolist())})
        seen = []
        for chance, texts in ((TARGET, QUIET), (share, LASTS), (TARGET, TEXTS)):
            for flagged in (rng.random(texts) < chance).tolist():
                monitor.update(flagged=flagged)
                seen.append(bool(monitor.drifting))
        lasts, after = np.array(seen[QUIET : QUIET + LASTS]), np.array(seen[QUIET + LASTS :])
        begins.append(float(np.argmax(lasts)) + 1 if lasts.any() else np.inf)
        ends.append(float(np.flatnonzero(after).max(initial=-1)) + 1)
        drifting.append(lasts.mean())
        alarms.append(monitor.sources[None].bets.alarms)
    return {
        "flagged %": 100 * share,
        "runs with an alarm": f"{np.isfinite(begins).sum()} of {ORDERS}",
        "texts until the alarm": _median(np.array(begins)),
        "drifting while it lasts %": round(100 * float(np.mean(drifting)), 1),
        "texts until it ends": _median(np.array(ends)),
        "alarms in a run, mean": float(np.mean(alarms)),
    }


if __name__ == "__main__":
    named = [name for name in sys.argv[1:] if name != "--simulated"]
    main(named if named or "--simulated" in sys.argv else list(MODELS))
