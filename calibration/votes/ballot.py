"""Which detectors decide: those that do not flag too much of a source that they have not seen.

The share of false alarms on a source that was left out has a lower Clopper-Pearson bound. A
detector is put in shadow if one of these bounds exceeds ``max_shift`` times the target. The bounds
of a detector's sources hold together with 95 % confidence (Bonferroni), so a few texts do not put a
good detector in shadow by chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from layerguard.calibration.defaults import DEFAULT_MAX_SHIFT
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import Sources, source_of
from layerguard.calibration.stages import LeftOut
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.guard_thresholds import TextScores
from layerguard.calibration.votes.shares import lower_bound, share
from layerguard.runtime.bundle.votes import VoteCard
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows.jsonl import Row

ERROR = 1 - conformal.CONFIDENCE
"""Probability that a bound of one of a detector's sources is wrong."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A detector whose vote is decided.

    Attributes:
        name: name of the detector.
        scores: held-out scores of clean texts.
        published: its published threshold, if it keeps that one.
        left_out: false alarms on the sources that a refit has not seen.
        not_left_out: why there is no such refit for other sources.
    """

    name: str
    scores: TextScores
    published: float | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    not_left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """How the votes are decided.

    Attributes:
        target_fpr: share of clean traffic that may be flagged.
        max_shift: multiple of it that may be flagged of a source that was left out.
        shadow: detectors that the user keeps from deciding.
        enforced: detectors that decide whatever was measured.
        judged: whether the evidence counts; published thresholds are measured and not judged.
    """

    target_fpr: float
    max_shift: float = DEFAULT_MAX_SHIFT
    shadow: Sequence[str] = ()
    enforced: Sequence[str] = ()
    judged: bool = True

    def __post_init__(self) -> None:
        """Refuse a multiple below 1, which would forbid what the target allows."""
        if not 1 <= self.max_shift < np.inf:
            raise InputError(f"--max-shift: found {self.max_shift:g}; expected a number from 1 on")

    @property
    def limit(self) -> float:
        """Largest allowed share of false alarms on a source that was left out."""
        return self.max_shift * self.target_fpr

    def vote(self, candidate: Candidate, rows: Sequence[Row]) -> VoteCard:
        """The vote of a detector, without its shares at the guard's thresholds.

        Args:
            candidate: the detector.
            rows: the clean rows that set the thresholds.
        """
        unseen, not_measured = _unseen(candidate, rows, self.target_fpr)
        least = {
            source: lower_bound(found.texts, found.flagged, ERROR / len(unseen))
            for source, found in unseen.items()
        }
        decides, reason = self._decided(candidate.name, unseen, least, not_measured)
        return VoteCard(
            decides=decides,
            reason=reason,
            unseen={name: share(found.texts, found.flagged) for name, found in unseen.items()},
            refitted=tuple(sorted(candidate.left_out)),
            least=least,
            not_measured=not_measured,
        )

    def _decided(
        self,
        name: str,
        unseen: Mapping[str, LeftOut],
        least: Mapping[str, float],
        not_measured: Mapping[str, str],
    ) -> tuple[bool, str]:
        worst = max(least, key=lambda source: (least[source], source), default=None)
        earned = worst is None or least[worst] <= self.limit
        if worst is None:
            why = "; ".join(f"{one}: {text}" for one, text in sorted(not_measured.items())[:3])
            found = f"no source could be left out ({why or 'the rows name fewer than two sources'})"
        else:
            found = (
                f"it flagged {unseen[worst].flagged} of {unseen[worst].texts} texts of {worst}, "
                f"a source that it had not seen: at least {_percent(least[worst])} of such texts, "
                f"with 95 % confidence; {_percent(self.limit)} are allowed, {self.max_shift:g} "
                "times the target"
            )
        if name in self.shadow:
            return False, f"in shadow, as asked: {found}"
        if name in self.enforced:
            return True, f"decides, as enforced: {found}"
        if not self.judged:
            return True, f"decides, as mode reference judges no vote: {found}"
        if earned:
            return True, f"decides: {found}"
        remedy = f"Add more varied sources to its rows, raise --max-shift, or --enforce {name}"
        return False, f"in shadow: {found}. {remedy}"


def one_must_decide(
    votes: Mapping[str, VoteCard], rule: Rule, detected: Mapping[str, float]
) -> dict[str, VoteCard]:
    """The votes; if no detector has earned its vote, the one that finds the most attacks decides.

    A guard that never flags would look like one that finds nothing. The reason says what was found.

    Args:
        votes: by detector.
        rule: how they were decided.
        detected: share of the texts of label 1 that a detector alone flags, see ``detection``; if
            none flags any, or there are no such texts, the one with the least shift decides.
    """
    possible = {name: vote for name, vote in votes.items() if name not in rule.shadow}
    if any(vote.decides for vote in possible.values()):
        return dict(votes)
    name = min(
        possible, key=lambda one: (-detected.get(one, 0.0), max(possible[one].least.values()), one)
    )
    found = possible[name].reason.removeprefix("in shadow: ")
    reason = f"decides, although no detector has earned its vote, because one must: {found}"
    return {**votes, name: replace(votes[name], decides=True, reason=reason)}


def detection(candidate: Candidate, harmful: TextScores, target_fpr: float) -> float:
    """The share of the texts of label 1 that a detector alone flags; 0 without such texts."""
    if not harmful:
        return 0.0
    threshold = _threshold(candidate, list(candidate.scores.values()), target_fpr)
    return sum(not score <= threshold for score in harmful.values()) / len(harmful)


def _unseen(
    candidate: Candidate, rows: Sequence[Row], target_fpr: float
) -> tuple[dict[str, LeftOut], dict[str, str]]:
    """False alarms by source that was left out, and why others are not measured.

    A source that the detector was not fitted on in this call needs no refit.
    """
    sources = Sources.of(rows)
    found = dict(candidate.left_out)
    not_measured = {**sources.not_measured, **candidate.not_left_out}
    for source in sources.measured:
        if source in found or source in not_measured:
            continue
        texts = {prompt_group(row) for row in rows if source_of(row) == source}
        own = [score for text, score in candidate.scores.items() if text in texts]
        rest = [score for text, score in candidate.scores.items() if text not in texts]
        try:
            threshold = _threshold(candidate, rest, target_fpr)
        except CalibrationError as error:
            not_measured[source] = f"the other rows do not suffice for a threshold: {error}"
            continue
        if own:
            found[source] = LeftOut(len(own), sum(not score <= threshold for score in own))
    return found, not_measured


def _threshold(candidate: Candidate, scores: Sequence[float], target_fpr: float) -> float:
    if candidate.published is not None:
        return candidate.published
    return conformal.threshold(np.array(scores), target_fpr)


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"
