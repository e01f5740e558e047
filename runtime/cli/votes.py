"""Lines on the votes of a bundle's detectors, for ``calibrate`` and ``inspect``."""

from collections.abc import Iterator, Mapping

from layerguard.runtime.bundle.votes import ShareCard, SharesCard, VotesCard


def vote_reasons(card: VotesCard) -> Iterator[str]:
    """A line for each detector: why it decides or not."""
    for name, vote in card.detectors.items():
        yield f"{name} {vote.reason}"


def vote_lines(card: VotesCard) -> Iterator[str]:
    """Lines on what each detector flags, and why it decides or not."""
    for name, vote in card.detectors.items():
        yield f"{name} {vote.reason}"
        for source, share in sorted(vote.unseen.items()):
            fitted = "fitted without it" if source in vote.refitted else "threshold without it"
            yield f"    {source}, left out: {_share(share)}; {fitted}"
        yield from _not_measured(vote.not_measured)
        yield from _shares(vote.shares)
        if vote.order:
            yield (
                f"    order of the rows: rank correlation {vote.order.correlation:.2f} "
                f"(p = {vote.order.p_value:.2g})"
            )
    yield "the whole guard at its thresholds, by held-out scores"
    yield from _shares(card.guard)


def _not_measured(why: Mapping[str, str]) -> Iterator[str]:
    """One line for all sources that have the same reason."""
    for reason in sorted(set(why.values())):
        names = sorted(source for source, own in why.items() if own == reason)
        yield f"    not left out: {', '.join(names)}: {reason}"


def _shares(card: SharesCard) -> Iterator[str]:
    flagged = {source: share for source, share in card.by_source.items() if share.flagged}
    for source, share in sorted(flagged.items()):
        yield f"    {source}: {_share(share)}"
    if len(flagged) < len(card.by_source):
        others = card.by_source.keys() - flagged.keys()
        yield f"    {', '.join(sorted(others))}: none flagged"
    for band, share in sorted(card.by_length.items(), key=lambda item: _first_number(item[0])):
        yield f"    {band} characters: {_share(share)}"
    if card.detection:
        yield f"    rows of label 1: {_share(card.detection)}"


def _first_number(band: str) -> int:
    """The first number of a band of length, by which the bands are in order."""
    return next(int(word) for word in band.split() if word.isdecimal())


def _share(card: ShareCard) -> str:
    low, high = (100 * bound for bound in card.interval)
    return f"{card.flagged} of {card.n} flagged, {low:.1f} to {high:.1f} % (95 %)"
