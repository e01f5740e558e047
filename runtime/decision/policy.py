"""Combines all readings of a text into one decision: policy, domains, p-value of the guard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.decision.blocks import Blocks
from layerguard.runtime.decision.flag_rate import Interval
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.types import Array, Combination, OnUnfamiliar, Reading, decision_of


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of one domain, and the scores of the clean texts that they come from.

    Attributes:
        thresholds: by detector.
        clean_scores: by detector, ascending.
        promised: interval of the share of clean texts that are flagged; [0, 1] is no guarantee.
        blocks: of the deciding detectors' scores; None without a guarantee.
    """

    thresholds: Mapping[str, float]
    clean_scores: Mapping[str, Array]
    promised: Interval = (0.0, 1.0)
    blocks: Blocks | None = None

    def p_value(self, scores: Sequence[float]) -> float | None:
        """The least target at which the guard would flag a text with these scores."""
        return None if self.blocks is None else self.blocks.p_value(scores)


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision on one text; see ``Verdict``. ``flagged`` is that of the detectors alone."""

    flagged: bool
    invalid: bool
    reason: str
    readings: Mapping[str, Reading]
    p_value: float | None
    domain: str | None
    familiarity: float | None
    unfamiliar: bool


class Decision:
    """Combines a bundle's readings into one decision; see ``runtime/decision/blocks.py``.

    Attributes:
        policy: ``any`` or ``all`` of the deciding detectors, or the name of the only one.
        shadow: detectors that are read but do not decide.
        enforced: detectors that decide.
        on_unfamiliar: what happens with a text unlike the calibration rows, by the bundle.
        limits: thresholds by domain; the key None is for all traffic.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's decision; without one the policy is ``any``."""
        card, arrays = bundle.manifest.decision, bundle.decision
        cards = bundle.manifest.detectors
        pooled = {name: detector.threshold for name, detector in cards.items()}
        self.limits: dict[str | None, Limits] = {None: Limits(pooled, {})}
        self.policy = "any"
        self._distance = next((name for name in cards if not REGISTRY[name].decides), None)
        self.on_unfamiliar: OnUnfamiliar = "allow"
        if self._distance is not None:
            self.on_unfamiliar = cards[self._distance].settings.get("on_unfamiliar", "allow")
        self.shadow = tuple(name for name in cards if name == self._distance)
        self.enforced = tuple(name for name in cards if name != self._distance)
        if card is None:
            return
        self.policy, self.shadow, self.enforced = card.policy, card.shadow, card.enforced
        if not card.promised:
            return
        scores, domains = arrays["scores"], arrays["domains"]
        self.limits[None] = _limits(card, pooled, card.fpr_interval, scores)
        for index, (name, own) in enumerate(sorted(card.domains.items())):
            if own.thresholds:
                of_domain = scores[domains == index]
                self.limits[name] = _limits(card, own.thresholds, own.fpr_interval, of_domain)

    @property
    def promised(self) -> Mapping[str | None, Interval]:
        """Interval of the share of clean texts that are flagged, by domain."""
        return {domain: limits.promised for domain, limits in self.limits.items()}

    @property
    def clean_texts(self) -> Mapping[str | None, int]:
        """Number of clean texts that the guard's p-value is measured against, by domain."""
        blocks = {domain: limits.blocks for domain, limits in self.limits.items()}
        return {domain: own.n for domain, own in blocks.items() if own is not None}

    def decide(self, readings: Mapping[str, Reading], domain: str | None = None) -> Decided:
        """The decision on one text; an unknown domain uses the thresholds of all traffic."""
        if domain not in self.limits:
            domain = None
        limits = self.limits[domain]
        if domain is not None:
            readings = {name: _at(limits, reading) for name, reading in readings.items()}
        distance = readings.get(self._distance) if self._distance is not None else None
        unfamiliar = distance is not None and distance.flagged
        if unfamiliar and len(self.limits) > 1:
            readings = {
                name: reading if name == self._distance else _at(self.cautious(name), reading)
                for name, reading in readings.items()
            }
        deciding = [readings[name] for name in self.enforced if name in readings]
        flagged, invalid = decision_of(deciding, self.policy)
        p_value = limits.p_value([reading.score for reading in deciding])
        reason = _reason(deciding, flagged)
        if distance is not None and unfamiliar:
            reason = f"{reason}; unlike the calibration rows (p = {distance.p_value:.2g})"
        familiarity = None if distance is None else distance.p_value
        return Decided(flagged, invalid, reason, readings, p_value, domain, familiarity, unfamiliar)

    def cautious(self, name: str) -> Limits:
        """The limits with the largest threshold of a detector."""
        return max(self.limits.values(), key=lambda limits: limits.thresholds[name])


def _limits(
    card: DecisionCard,
    thresholds: Mapping[str, float],
    interval: tuple[float, ...],
    scores: Array,
) -> Limits:
    low, high = interval
    columns = [card.detectors.index(name) for name in card.enforced]
    return Limits(
        thresholds,
        dict(zip(card.detectors, np.sort(scores.T, axis=1), strict=True)),
        (low, high),
        Blocks(scores[:, columns], combination(card.policy)),
    )


def _at(limits: Limits, reading: Reading) -> Reading:
    """The reading with the threshold of these limits."""
    name = reading.detector
    threshold, clean_scores = limits.thresholds[name], limits.clean_scores[name]
    decided = decide(name, reading.score, threshold, clean_scores, reading.evidence)
    return replace(decided, spans=reading.spans if decided.flagged else ())


def _reason(deciding: Sequence[Reading], flagged: bool) -> str:
    """One sentence that explains the decision."""
    if flagged:
        return "; ".join(_why(reading) for reading in deciding if reading.flagged)
    above = [reading.detector for reading in deciding if reading.flagged]
    if above:
        return f"only {', '.join(above)} flagged it; the policy requires all deciding detectors"
    return "every score is within its threshold"


def _why(reading: Reading) -> str:
    if reading.status == "invalid":
        return f"{reading.detector}: the score is not finite, so the text is flagged"
    layers = ", ".join(str(item.layer) for item in reading.evidence[:3])
    where = f", most at layers {layers}" if layers else ""
    if reading.spans:
        first = reading.spans[0]
        where = f", characters {first.start} to {first.end}"
    return (
        f"{reading.detector}: score {reading.score:.3g} above {reading.threshold:.3g} "
        f"(p = {reading.p_value:.2g}){where}"
    )


def combination(policy: str) -> Combination:
    """How the deciding detectors are combined; a single one is combined by ``any``."""
    return "all" if policy == "all" else "any"
