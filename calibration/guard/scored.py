"""The scores of all detectors of a guard, those fitted now and those kept, and their votes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from layerguard.calibration.defaults import Mode
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.thresholds.guard_thresholds import (
    FIXED,
    GuardThresholds,
    Policy,
    TextScores,
)
from layerguard.calibration.thresholds.kept_detectors import KeptDetectors
from layerguard.calibration.votes.ballot import (
    Candidate,
    Rule,
    detection,
    one_must_decide,
)
from layerguard.calibration.votes.measured import with_shares
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import DetectorCard
from layerguard.runtime.bundle.votes import SharesCard, VotesCard
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row


def rule_of(
    policy: Policy,
    detectors: Collection[str],
    enforced: Sequence[str],
    max_shift: float,
    mode: Mode,
) -> Rule:
    """The rule of the votes.

    Raises:
        InputError: an enforced detector is unknown or in shadow, or ``max_shift`` is below 1.
    """
    possible = policy.enforced(detectors)
    wrong = sorted(set(enforced) - set(possible))
    if wrong:
        raise InputError(
            f"--enforce: found {', '.join(wrong)}; expected some of {', '.join(possible)}, which "
            "neither --shadow nor --policy keeps from deciding"
        )
    return Rule(policy.target_fpr, max_shift, policy.shadow, enforced, mode != "reference")


@dataclass(frozen=True, slots=True)
class ScoredDetectors:
    """The detectors of a guard with their scores.

    Attributes:
        before: the bundle before the calibration.
        fitted: the detectors that are fitted now.
        kept: the other detectors of the bundle.
        rows: the clean rows that set the thresholds.
    """

    before: Bundle
    fitted: Sequence[FittedDetector]
    kept: KeptDetectors
    rows: Sequence[Row]

    @property
    def clean(self) -> dict[str, TextScores]:
        """Held-out scores of clean texts, by detector."""
        return self.kept.scores() | {one.name: one.clean_scores for one in self.fitted}

    @property
    def harmful(self) -> dict[str, TextScores]:
        """Scores of texts of label 1, by detector."""
        found = self.kept.harmful.by_detector()
        return found | {one.name: one.harmful_scores for one in self.fitted}

    @property
    def published(self) -> dict[str, float]:
        """The published thresholds of the detectors that keep them."""
        cards = self.before.manifest.detectors
        found = {
            name: cards[name].threshold for name in self.kept.names if cards[name].method in FIXED
        }
        own = {one.name: one.threshold.value for one in self.fitted if one.threshold}
        return found | {one.name: own[one.name] for one in self.fitted if one.method in FIXED}

    @property
    def held_out_sources(self) -> frozenset[str]:
        """The detectors whose held-out scores are of sources that their fit has not seen."""
        cards: dict[str, DetectorCard | FittedDetector] = {
            **{name: self.before.manifest.detectors[name] for name in self.kept.names},
            **{one.name: one for one in self.fitted},
        }
        return frozenset(
            name
            for name, card in cards.items()
            if card.method == "by-source" or card.settings.get("folds_by") == "source"
        )

    def votes(self, rule: Rule) -> VotesCard:
        """Which detectors decide; at least one does."""
        refits = {one.name: (one.left_out, one.not_left_out) for one in self.fitted}
        published, harmful = self.published, self.harmful
        candidates = [
            Candidate(name, scores, published.get(name), *refits.get(name, ({}, {})))
            for name, scores in sorted(self.clean.items())
            if REGISTRY[name].decides
        ]
        votes = {one.name: rule.vote(one, self.rows) for one in candidates}
        detected = {
            one.name: detection(one, harmful[one.name], rule.target_fpr) for one in candidates
        }
        votes = one_must_decide(votes, rule, detected)
        return VotesCard(float(rule.target_fpr), float(rule.max_shift), votes, SharesCard())

    def measured(self, votes: VotesCard, thresholds: GuardThresholds) -> VotesCard:
        """The votes with what the detectors and the guard flag at their thresholds."""
        served: Mapping[str, float] = self.published | {
            name: threshold.value for name, threshold in thresholds.thresholds.items()
        }
        every = thresholds.card.policy == "all"
        return with_shares(votes, self.rows, self.clean, self.harmful, served, every=every)
