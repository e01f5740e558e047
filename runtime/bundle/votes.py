"""The cards that say why each detector decides or not: what calibration measured on its rows."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ShareCard:
    """A share of flagged texts: ``flagged`` of ``n``, with its 95 % Clopper-Pearson interval."""

    n: int
    flagged: int
    interval: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SharesCard:
    """Shares at the guard's thresholds, by held-out scores.

    Attributes:
        by_source: false alarms on the clean texts of each source.
        by_length: false alarms on the clean texts of each band of length, in characters.
        detection: flagged texts of label 1; None if none were given.
    """

    by_source: dict[str, ShareCard] = field(default_factory=dict)
    by_length: dict[str, ShareCard] = field(default_factory=dict)
    detection: ShareCard | None = None


@dataclass(frozen=True, slots=True)
class OrderCard:
    """Spearman's correlation of score and position of the row, and the p-value of its test."""

    correlation: float
    p_value: float


@dataclass(frozen=True, slots=True)
class VoteCard:
    """Whether one detector decides, and the evidence.

    Attributes:
        decides: whether it decides by this evidence, or because the user said so.
        reason: one sentence.
        unseen: false alarms on each source that was left out, at the target of the whole guard.
        refitted: the sources of ``unseen`` without which its parameters were fitted again. For the
            others, only the threshold was set without them.
        least: for each source of ``unseen``, the lower bound that was compared with the limit.
        not_measured: why a source is not in ``unseen``.
        shares: what it flags at its threshold.
        order: drift over the order of the clean rows; None if there are too few.
    """

    decides: bool
    reason: str
    unseen: dict[str, ShareCard] = field(default_factory=dict)
    refitted: tuple[str, ...] = ()
    least: dict[str, float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    shares: SharesCard = field(default_factory=SharesCard)
    order: OrderCard | None = None


@dataclass(frozen=True, slots=True)
class VotesCard:
    """The votes of a bundle's detectors.

    Attributes:
        target_fpr: share of clean traffic that each detector may flag.
        max_shift: multiple of the target that it may flag of a source that it has not seen.
        detectors: by name.
        guard: what the whole guard flags.
    """

    target_fpr: float
    max_shift: float
    detectors: dict[str, VoteCard]
    guard: SharesCard


def vote_faults(card: VotesCard, detectors: Collection[str]) -> list[str]:
    """Values of the card that contradict each other or the detectors of the manifest."""
    where = "manifest.json: votes"
    faults = []
    unknown = sorted(card.detectors.keys() - set(detectors))
    if unknown:
        faults.append(f"{where}.detectors has {unknown}; expected some of {sorted(detectors)}")
    if not (0 < card.target_fpr < 1 and card.max_shift >= 1):
        faults.append(
            f"{where}: target_fpr {card.target_fpr} and max_shift {card.max_shift}; expected a "
            "share between 0 and 1, and 1 or more"
        )
    for name, share in _shares(card):
        low, high = share.interval if len(share.interval) == 2 else (1.0, 0.0)
        if not (0 <= share.flagged <= share.n and 0 <= low <= high <= 1):
            faults.append(
                f"{where}.{name}: {share.flagged} of {share.n} flagged, interval "
                f"{list(share.interval)}; expected a part of the texts and its interval"
            )
    return faults


def _shares(card: VotesCard) -> Iterator[tuple[str, ShareCard]]:
    yield from _within("guard", card.guard)
    for name, vote in card.detectors.items():
        yield from _within(f"detectors.{name}.shares", vote.shares)
        yield from _named(f"detectors.{name}.unseen", vote.unseen)


def _within(where: str, shares: SharesCard) -> Iterator[tuple[str, ShareCard]]:
    yield from _named(f"{where}.by_source", shares.by_source)
    yield from _named(f"{where}.by_length", shares.by_length)
    if shares.detection:
        yield f"{where}.detection", shares.detection


def _named(where: str, shares: Mapping[str, ShareCard]) -> Iterator[tuple[str, ShareCard]]:
    for name, share in shares.items():
        yield f"{where}.{name}", share
