"""One decision over all readings of a text: policy, domains, and the whole guard's p-value."""

import math
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
    """Thresholds of one kind of traffic, and the clean texts that they come from.

    Attributes:
        thresholds: by detector.
        clean_scores: by detector, ascending.
        promised: where the share of clean texts that are flagged lies; [0, 1] promises nothing.
        blocks: of the deciding detectors' scores; None where nothing is promised.
    """

    thresholds: Mapping[str, float]
    clean_scores: Mapping[str, list[float]]
    promised: Interval = (0.0, 1.0)
    blocks: Blocks | None = None

    def p_value(self, scores: Sequence[float]) -> float | None:
        """The least target at which the guard would flag a text with these scores."""
        if self.blocks is None:
            return None
        valid = all(map(math.isfinite, scores))
        return self.blocks.p_value(scores) if valid else 1 / (self.blocks.n + 1)


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
    """How a bundle's readings become one decision. The promise: ``runtime/decision/blocks.py``.

    Attributes:
        policy: ``any`` or ``all`` of the deciding detectors, or the name of the only one.
        shadow: detectors that are read and never decide.
        enforced: those that decide.
        limits: thresholds by domain; None is for all traffic.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Take what the bundle says; one without a decision flags where any detector does."""
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
        """By domain, where the share of clean texts that are flagged lies."""
        return {domain: limits.promised for domain, limits in self.limits.items()}

    def decide(self, found: Mapping[str, Reading], domain: str | None = None) -> Decided:
        """The decision on one text of some domain, known or not."""
        if domain not in self.limits:
            domain = None
        limits = self.limits[domain]
        readings = found if domain is None else _at(limits, found)
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
        dict(zip(card.detectors, np.sort(scores, axis=0).T.tolist(), strict=True)),
        (low, high),
        Blocks(scores[:, columns], combination(card.policy)),
    )


def _at(limits: Limits, found: Mapping[str, Reading]) -> Mapping[str, Reading]:
    """The readings at the thresholds of a domain."""
    return {
        name: decide(
            name,
            reading.score,
            limits.thresholds[name],
            limits.clean_scores[name],
            reading.evidence,
        )
        for name, reading in found.items()
    }


def _reason(deciding: Sequence[Reading], flagged: bool) -> str:
    """One sentence for a person."""
    if flagged:
        return "; ".join(_why(reading) for reading in deciding if reading.flagged)
    above = [reading.detector for reading in deciding if reading.flagged]
    if above:
        return f"{', '.join(above)} alone flagged it; the policy asks for all that decide"
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
    """How the deciding detectors are combined; one alone is any of one."""
    return "all" if policy == "all" else "any"
