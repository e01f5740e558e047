"""The thresholds of a guard: one target for all detectors, on the same clean texts.

Every detector has a held-out score of each clean text. ``runtime/decision/blocks.py`` removes the
texts one at a time in order of their scores, which sets all thresholds together. An additional
detector therefore does not raise the false-positive rate. Texts with a domain also set the
thresholds of that domain if there are enough of them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerguard.calibration.rows.fingerprint import fingerprint
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.text_hashes import TextHashes, own_hashes
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import NOTHING_PROMISED, Threshold
from layerguard.runtime.bundle.decision import DecisionCard, DomainCard
from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.decision.policy import combination
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array

TextScores = Mapping[str, float]
"""One detector's scores of clean texts, by ``prompt_group``."""

FIXED = ("reference", "imported")
"""Methods with a published threshold, which is not changed and promises no rate."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The deciding detectors and the target.

    Attributes:
        name: ``any`` or ``all`` of the deciding detectors, or the name of the only one.
        shadow: detectors whose scores are reported but never decide.
        target_fpr: share of clean traffic that the whole guard may flag, in (0, 1).
    """

    name: str
    shadow: tuple[str, ...]
    target_fpr: float

    @classmethod
    def over(
        cls, detectors: Collection[str], name: str, shadow: Iterable[str], target_fpr: float
    ) -> "Policy":
        """The policy for a bundle's detectors.

        Raises:
            InputError: a name is not that of a detector, or no detector is left to decide.
        """
        measuring = {name for name in detectors if name in REGISTRY and not REGISTRY[name].decides}
        known = ", ".join(sorted(set(detectors) - measuring))
        not_deciding = {*shadow, *measuring}
        if name not in ("any", "all"):
            if name not in detectors or name in not_deciding:
                raise InputError(f"--policy: found {name!r}; expected any, all, or one of {known}")
            not_deciding |= set(detectors) - {name}
        unknown = sorted(not_deciding - set(detectors))
        if unknown:
            raise InputError(f"--shadow: found {', '.join(unknown)}; expected some of {known}")
        if not set(detectors) - not_deciding:
            raise InputError(f"--shadow: found all of {known}; at least one must decide")
        return cls(name, tuple(sorted(not_deciding)), target_fpr)

    def without(self, names: Iterable[str]) -> "Policy":
        """The policy with more detectors in shadow."""
        return replace(self, shadow=tuple(sorted({*self.shadow, *names})))

    def enforced(self, detectors: Iterable[str]) -> tuple[str, ...]:
        """The deciding detectors, in order of their names."""
        return tuple(sorted(set(detectors) - set(self.shadow)))

    def check_support(self, texts: int, detectors: Collection[str]) -> None:
        """Refuse a target for which ``texts`` clean texts do not suffice.

        Raises:
            CalibrationError: the message says how many texts are needed.
        """
        sharing = len(self.enforced(detectors))
        conformal.rank(texts, self.target_fpr, 1 if self.name == "all" else max(sharing, 1))


@dataclass(frozen=True, slots=True, eq=False)
class GuardThresholds:
    """The thresholds of a guard's detectors, and the decision over them.

    Attributes:
        card: the decision card for the manifest.
        arrays: the decision's own arrays for ``detectors.npz``: scores float64 [n, detectors], in
            the order of the card; domains int32 [n], an index into the card's domains sorted by
            name, or -1; texts int64 [n], hashes of the clean texts; seen int64, hashes of the
            texts that the parameters were fitted on.
        thresholds: by detector, without detectors that keep a published threshold.
        text_key: id of the key of the hashes.
    """

    card: DecisionCard
    arrays: Mapping[str, Array]
    thresholds: Mapping[str, Threshold]
    text_key: str


def set_thresholds(
    scores: Mapping[str, TextScores],
    rows: Sequence[Row],
    policy: Policy,
    *,
    fixed: Collection[str] = (),
    held_out_sources: Collection[str] = (),
    seen: Array | None = None,
    hashes: TextHashes | None = None,
) -> GuardThresholds:
    """Set every threshold from the scores of the clean texts that all detectors scored.

    Args:
        scores: scores of clean texts, by detector.
        rows: the clean rows of these texts.
        policy: the deciding detectors and the target.
        fixed: detectors whose thresholds do not change; if one of them decides, no rate is
            promised, and each other detector gets the threshold that it would have alone.
        held_out_sources: detectors whose scores are of sources that their parameters have not seen.
            They flag less traffic of the sources that they have seen, so the interval of a rate
            that depends on them has no lower end.
        seen: int64, hashes of the texts that the parameters were fitted on.
        hashes: hashes the clean texts; None for those with the user's own key.

    Raises:
        CalibrationError: too few clean texts for the target.
    """
    texts = _CommonTexts.of(scores, rows)
    hashes = hashes or own_hashes()
    promised = not set(policy.enforced(texts.detectors)) & set(fixed)
    rule = _Rule(texts.detectors, policy, frozenset(fixed), promised, frozenset(held_out_sources))
    interval = NOTHING_PROMISED
    if promised:
        policy.check_support(len(texts.scores), texts.detectors)
        interval = rule.interval(len(texts.scores))
    card = DecisionCard(
        policy=policy.name,
        detectors=texts.detectors,
        shadow=policy.shadow,
        target_fpr=float(policy.target_fpr),
        fpr_interval=interval,
        n=len(texts.scores),
        calibration_sha256=fingerprint(texts.rows),
        domains={
            domain: rule.of_domain(texts.scores[texts.domain_codes == code])
            for code, domain in enumerate(texts.domains)
        },
    )
    arrays: dict[str, Array] = {
        "scores": texts.scores,
        "domains": texts.domain_codes,
        "texts": hashes.of(texts.texts),
        "seen": np.empty(0, np.int64) if seen is None else np.unique(seen),
    }
    return GuardThresholds(card, arrays, rule.thresholds(texts.scores), hashes.id)


@dataclass(frozen=True, slots=True, eq=False)
class _CommonTexts:
    """The clean texts that every detector scored.

    Attributes:
        detectors: names of the detectors, sorted.
        rows: rows of these texts.
        texts: different texts, in order of appearance.
        scores: float64 [texts, detectors].
        domains: names of the domains, sorted.
        domain_codes: int32 [texts], an index in ``domains``, or -1.
    """

    detectors: tuple[str, ...]
    rows: Sequence[Row]
    texts: Sequence[str]
    scores: Array
    domains: Sequence[str]
    domain_codes: Array

    @classmethod
    def of(cls, scores: Mapping[str, TextScores], rows: Sequence[Row]) -> "_CommonTexts":
        names = tuple(sorted(scores))
        used = [r for r in rows if all(prompt_group(r) in by_text for by_text in scores.values())]
        domain_of = {prompt_group(row): row.domain for row in reversed(used)}
        texts = list(dict.fromkeys(map(prompt_group, used)))
        table = np.array([[scores[name][text] for name in names] for text in texts], np.float64)
        domains = sorted({domain for domain in domain_of.values() if domain is not None})
        index = {domain: code for code, domain in enumerate(domains)}
        codes = [index.get(domain_of[text] or "", -1) for text in texts]
        return cls(
            detectors=names,
            rows=used,
            texts=texts,
            scores=table.reshape(len(texts), len(names)),
            domains=domains,
            domain_codes=np.array(codes, np.int32),
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    """Computes thresholds from scores, float64 [n, detectors]."""

    names: tuple[str, ...]
    policy: Policy
    fixed: frozenset[str]
    promised: bool
    held_out_sources: frozenset[str]

    def interval(self, n: int) -> tuple[float, float]:
        """95 % interval of the guard's realised rate, by n clean texts."""
        low, high = conformal.fpr_interval(n, self.policy.target_fpr).tolist()
        return self._low(low, self.policy.enforced(self.names)), high

    def _low(self, low: float, detectors: Collection[str]) -> float:
        return 0.0 if self.held_out_sources & set(detectors) else low

    def values(self, scores: Array) -> dict[str, float]:
        """The thresholds by detector, without those of ``fixed``."""
        n, target = len(scores), self.policy.target_fpr
        alone = {
            name: conformal.threshold(scores[:, i], target)
            for i, name in enumerate(self.names)
            if name not in self.fixed
        }
        if not self.promised:
            return alone
        deciding = self.policy.enforced(self.names)
        columns = [self.names.index(name) for name in deciding]
        together = Blocks(scores[:, columns], combination(self.policy.name))
        shared = {}
        for name, value in zip(deciding, together.thresholds(allowed(n, target)), strict=True):
            if value is None:
                raise CalibrationError(
                    f"target {100 * target:g} % gives {name} no threshold, because the other "
                    "detectors decide alone at this target; lower the target"
                )
            shared[name] = value
        return alone | shared

    def of_domain(self, scores: Array) -> DomainCard:
        """The card of a domain; without thresholds if its texts do not suffice."""
        try:
            self.policy.check_support(len(scores), self.names)
        except CalibrationError:
            return DomainCard(len(scores), NOTHING_PROMISED, {})
        if not self.promised or self.fixed:
            return DomainCard(len(scores), NOTHING_PROMISED, {})
        return DomainCard(len(scores), self.interval(len(scores)), self.values(scores))

    def thresholds(self, scores: Array) -> dict[str, Threshold]:
        """The thresholds, each with the false-positive rate of its detector.

        If several detectors share the target, the target of each is its own share: the part of the
        n + 1 blocks above its threshold.
        """
        values = self.values(scores)
        n, sharing = len(scores), len(self.policy.enforced(self.names)) > 1
        thresholds = {}
        for i, name in enumerate(self.names):
            if name not in values:
                continue
            ascending, value = np.sort(scores[:, i]), values[name]
            target, flagged = self.policy.target_fpr, allowed(n, self.policy.target_fpr)
            if self.promised and sharing and name not in self.policy.shadow:
                flagged = int(np.count_nonzero(ascending >= value))
                target = flagged / (n + 1)
            low, high = conformal.blocks_interval(n, flagged).tolist()
            interval = self._low(low, [name]), high
            thresholds[name] = Threshold(value, ascending, target, interval)
        return thresholds
