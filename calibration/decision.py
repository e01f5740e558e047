"""Calibrate the decision: one target for the whole guard, over the same clean texts.

Every detector gives each clean text a score by parameters that never saw it; cutting the texts off
one by one sets all thresholds at once (``runtime/decision/blocks.py``), so that adding a detector
adds no false alarms. Texts that carry a domain set that domain's thresholds too, where they
suffice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration import conformal
from layerguard.calibration.fingerprint import fingerprint, text_hashes
from layerguard.calibration.leakage import prompt_group
from layerguard.runtime.bundle.decision import DecisionCard, DomainCard
from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.decision.policy import combination
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array

Column = Mapping[str, float]
"""One detector's scores of clean texts, by ``prompt_group``."""

FIXED = ("reference", "imported")
"""Methods whose threshold is the published one: it stays, and promises nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who decides.

    Attributes:
        name: ``any`` or ``all`` of the enforced detectors, or the name of the only one.
        shadow: detectors that are read and never decide.
        target_fpr: share of clean traffic that the whole guard may flag.
    """

    name: str
    shadow: tuple[str, ...]
    target_fpr: float

    @classmethod
    def over(
        cls, detectors: Collection[str], name: str, shadow: Iterable[str], target_fpr: float
    ) -> "Policy":
        """The policy over a bundle's detectors.

        Raises:
            InputError: it names one that is not among them, or leaves none to decide.
        """
        known = ", ".join(sorted(detectors))
        aside = set(shadow)
        if name not in ("any", "all"):
            if name not in detectors or name in aside:
                raise InputError(f"--policy: found {name!r}; expected any, all, or one of {known}")
            aside |= set(detectors) - {name}
        strange = sorted(aside - set(detectors))
        if strange:
            raise InputError(f"--shadow: found {', '.join(strange)}; expected some of {known}")
        if not set(detectors) - aside:
            raise InputError(f"--shadow: found all of {known}; one at least has to decide")
        return cls(name, tuple(sorted(aside)), target_fpr)

    def enforced(self, detectors: Iterable[str]) -> tuple[str, ...]:
        """Those that decide, in order of their names."""
        return tuple(sorted(set(detectors) - set(self.shadow)))

    def check_support(self, texts: int, detectors: Collection[str]) -> None:
        """Refuse a target that so many clean texts cannot support.

        Raises:
            CalibrationError: saying how many are needed.
        """
        sharing = len(self.enforced(detectors))
        conformal.rank(texts, self.target_fpr, 1 if self.name == "all" else max(sharing, 1))


@dataclass(frozen=True, slots=True)
class Settled:
    """A calibrated decision: what the manifest and ``detectors.npz`` hold of it.

    Attributes:
        card: for the manifest.
        arrays: scores float64 [n, detectors], in the order of the card; domains int32 [n], an index
            into the card's domains in order of name, or -1; texts int64 [n] and seen int64, hashes
            of the clean texts and of all that the parameters were fitted on.
        params: every detector's, with its new threshold.
        fixed: detectors whose thresholds stayed as they were.
    """

    card: DecisionCard
    arrays: Mapping[str, Array]
    params: Mapping[str, Mapping[str, Array]]
    fixed: frozenset[str]


def settle(
    columns: Mapping[str, Column],
    rows: Sequence[Row],
    params: Mapping[str, Mapping[str, Array]],
    policy: Policy,
    *,
    fixed: Collection[str] = (),
    seen: Array | None = None,
) -> Settled:
    """Set every threshold from the scores of the clean texts that all detectors could score.

    Args:
        columns: each detector's scores.
        rows: the clean rows that they were taken from.
        params: each detector's, as fitted.
        policy: who decides, and the target.
        fixed: detectors whose thresholds stay as they are; if one of them decides, nothing is
            promised, and the others get the thresholds that they would have alone.
        seen: int64, hashes of the texts that the parameters were fitted on.

    Raises:
        CalibrationError: too few clean texts for the target.
    """
    names = tuple(sorted(columns))
    used = [r for r in rows if all(prompt_group(r) in column for column in columns.values())]
    of_text = {prompt_group(row): row.domain for row in reversed(used)}
    texts = list(dict.fromkeys(map(prompt_group, used)))
    scores = np.array([[columns[name][text] for name in names] for text in texts], np.float64)
    scores = scores.reshape(len(texts), len(names))
    domains = sorted({domain for domain in of_text.values() if domain is not None})
    index = {domain: i for i, domain in enumerate(domains)}
    codes = np.array([index.get(of_text[text] or "", -1) for text in texts], np.int32)

    promised = not set(policy.enforced(names)) & set(fixed)
    limits = _Limits(names, policy, frozenset(fixed), promised)
    interval = (0.0, 1.0)
    if promised:
        policy.check_support(len(texts), names)
        low, high = conformal.fpr_interval(len(texts), policy.target_fpr).tolist()
        interval = (low, high)
    card = DecisionCard(
        policy=policy.name,
        detectors=names,
        shadow=policy.shadow,
        target_fpr=float(policy.target_fpr),
        fpr_interval=interval,
        n=len(texts),
        calibration_sha256=fingerprint(used),
        domains={domain: limits.of_domain(scores[codes == index[domain]]) for domain in domains},
    )
    arrays: dict[str, Array] = {
        "scores": scores,
        "domains": codes,
        "texts": text_hashes(texts),
        "seen": np.empty(0, np.int64) if seen is None else np.unique(seen),
    }
    return Settled(card, arrays, limits.applied(scores, params), frozenset(fixed))


@dataclass(frozen=True, slots=True)
class _Limits:
    """Thresholds from scores float64 [n, detectors]."""

    names: tuple[str, ...]
    policy: Policy
    fixed: frozenset[str]
    promised: bool

    def thresholds(self, scores: Array) -> dict[str, float]:
        """By detector; those whose thresholds stay are left out."""
        n, target = len(scores), self.policy.target_fpr
        found = {
            name: conformal.threshold(scores[:, i], target)
            for i, name in enumerate(self.names)
            if name not in self.fixed
        }
        if not self.promised:
            return found
        deciding = self.policy.enforced(self.names)
        columns = [self.names.index(name) for name in deciding]
        together = Blocks(scores[:, columns], combination(self.policy.name))
        for name, limit in zip(deciding, together.thresholds(allowed(n, target)), strict=True):
            if limit is None:
                raise CalibrationError(
                    f"target {100 * target:g} % is met by flagging everything that the other "
                    f"detectors flag, whatever {name} says; lower the target"
                )
            found[name] = limit
        return found

    def of_domain(self, scores: Array) -> DomainCard:
        """The card of a domain; without thresholds where its texts do not suffice."""
        try:
            self.policy.check_support(len(scores), self.names)
        except CalibrationError:
            return DomainCard(len(scores), (0.0, 1.0), {})
        if not self.promised or self.fixed:
            return DomainCard(len(scores), (0.0, 1.0), {})
        low, high = conformal.fpr_interval(len(scores), self.policy.target_fpr).tolist()
        return DomainCard(len(scores), (low, high), self.thresholds(scores))

    def applied(
        self, scores: Array, params: Mapping[str, Mapping[str, Array]]
    ) -> dict[str, Mapping[str, Array]]:
        """The parameters with their thresholds, and what each detector flags at its own.

        One that shares the target is told its share: the part of the n + 1 blocks above its
        threshold.
        """
        found = self.thresholds(scores)
        n, sharing = len(scores), len(self.policy.enforced(self.names)) > 1
        changed: dict[str, Mapping[str, Array]] = dict(params)
        for i, name in enumerate(self.names):
            if name not in found:
                continue
            column, limit = np.sort(scores[:, i]), found[name]
            target, flagged = self.policy.target_fpr, allowed(n, self.policy.target_fpr)
            if self.promised and sharing and name not in self.policy.shadow:
                flagged = int(np.count_nonzero(column >= limit))
                target = flagged / (n + 1)
            changed[name] = {
                **params[name],
                "threshold": np.array(limit),
                "clean_scores": column,
                "target_fpr": np.array(float(target)),
                "fpr_interval": conformal.blocks_interval(n, flagged),
            }
        return changed
