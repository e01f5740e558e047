"""What the detectors and the whole guard flag at their thresholds, by held-out scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import source_of
from layerguard.calibration.thresholds.guard_thresholds import TextScores
from layerguard.calibration.votes.shares import by_group, drift_over_order, length_band, of_all
from layerguard.runtime.bundle.votes import SharesCard, VoteCard, VotesCard
from layerguard.runtime.rows.jsonl import Row

Flags = Mapping[str, bool]
"""Whether a text is flagged, by ``prompt_group``."""


def with_shares(
    card: VotesCard,
    rows: Sequence[Row],
    clean: Mapping[str, TextScores],
    harmful: Mapping[str, TextScores],
    thresholds: Mapping[str, float],
    *,
    every: bool,
) -> VotesCard:
    """The votes with the shares of flagged texts.

    Args:
        card: the votes.
        rows: clean rows, in their order.
        clean: scores of clean texts, by detector.
        harmful: scores of the texts of label 1, by detector.
        thresholds: by detector, for all traffic.
        every: whether all deciding detectors have to flag a text, instead of any.
    """
    order = list(dict.fromkeys(map(prompt_group, rows)))
    sources = {prompt_group(row): source_of(row) for row in reversed(rows)}
    source_by_text = {text: source for text, source in sources.items() if source is not None}
    lengths = {text: length_band(text) for text in order}
    ordered = {
        name: {text: scores[text] for text in order if text in scores}
        for name, scores in clean.items()
    }

    def shares(clean_flags: Flags, harmful_flags: Flags) -> SharesCard:
        return SharesCard(
            by_source=by_group(clean_flags, source_by_text),
            by_length=by_group(clean_flags, lengths),
            detection=of_all(harmful_flags.values()),
        )

    def measured(name: str, vote: VoteCard) -> VoteCard:
        flags = [_flags(scores, thresholds[name]) for scores in (ordered[name], harmful[name])]
        return replace(vote, shares=shares(*flags), order=drift_over_order(ordered[name]))

    deciding = [name for name, vote in card.detectors.items() if vote.decides]
    guard = [
        _combined([_flags(by_detector[name], thresholds[name]) for name in deciding], every=every)
        for by_detector in (ordered, harmful)
    ]
    detectors = {name: measured(name, vote) for name, vote in card.detectors.items()}
    return replace(card, detectors=detectors, guard=shares(*guard))


def _flags(scores: TextScores, threshold: float) -> dict[str, bool]:
    return {text: not score <= threshold for text, score in scores.items()}


def _combined(flags: Sequence[Flags], *, every: bool) -> dict[str, bool]:
    """The decision on the texts that all deciding detectors scored."""
    first, *others = flags
    combine = all if every else any
    return {
        text: combine(own[text] for own in flags)
        for text in first
        if all(text in other for other in others)
    }
