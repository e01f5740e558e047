"""Combines all readings of a text into one decision: policy, domains, p-value of the guard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.decision.blocks import Blocks
from layerguard.runtime.decision.flag_rate import Interval
from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.types import Array, Combination, Reading, decision_of


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
    """The decision on one text; see ``Verdict`` for the attributes."""

    flagged: bool
    invalid: bool
    reason: str
    readings: Mapping[str, Reading]
    p_value: float | None
    domain: str | None


class Decision:
    """Combines a bundle's readings into one decision; see ``runtime/decision/blocks.py``.

    Attributes:
        policy: ``any`` or ``all`` of the deciding detectors, or the name of the only one.
        shadow: detectors that are read but do not decide.
        enforced: detectors that decide.
        limits: thresholds by domain; the key None is for all traffic.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's decision; without one the policy is ``any``."""
        card, arrays = bundle.manifest.decision, bundle.decision
        cards = bundle.manifest.detectors
        pooled = {name: detector.threshold for name, detector in cards.items()}
        self.limits: dict[str | None, Limits] = {None: Limits(pooled, {})}
        self.policy = "any"
        self.shadow: tuple[str, ...] = ()
        self.enforced = tuple(cards)
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

    def decide(self, readings: Mapping[str, Reading], domain: str | None = None) -> Decided:
        """The decision on one text; an unknown domain uses the thresholds of all traffic."""
        if domain not in self.limits:
            domain = None
        limits = self.limits[domain]
        if domain is not None:
            readings = _at(limits, readings)
        deciding = [readings[name] for name in self.enforced if name in readings]
        flagged, invalid = decision_of(deciding, self.policy)
        p_value = limits.p_value([reading.score for reading in deciding])
        return Decided(flagged, invalid, _reason(deciding, flagged), readings, p_value, domain)


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


def _at(limits: Limits, readings: Mapping[str, Reading]) -> Mapping[str, Reading]:
    """The readings with the thresholds of a domain."""
    return {
        name: decide(
            name,
            reading.score,
            limits.thresholds[name],
            limits.clean_scores[name],
            reading.evidence,
        )
        for name, reading in readings.items()
    }


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
    return (
        f"{reading.detector}: score {reading.score:.3g} above {reading.threshold:.3g} "
        f"(p = {reading.p_value:.2g}){where}"
    )


def combination(policy: str) -> Combination:
    """How the deciding detectors are combined; a single one is combined by ``any``."""
    return "all" if policy == "all" else "any"
