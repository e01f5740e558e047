"""What the calibrating commands print of their result."""

from collections.abc import Iterator

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.manifest import DetectorCard

_TEXTS_ADVISED = 200


def detector_line(name: str, card: DetectorCard) -> str:
    """How one detector was fitted."""
    return f"{name}: {card.method}, {card.n} rows, threshold {card.threshold:.4g}"


def dropped_lines(before: Bundle) -> list[str]:
    """What holds the detectors as they are, and goes when they change; ask before they do."""
    lines = [
        f"{card.file} fell away: `layerguard fuse` makes a new one"
        for card in before.manifest.fused.values()
    ]
    if (before.path / SIGNATURE).exists():
        lines.append(f"{SIGNATURE} fell away: `layerguard sign` makes a new one")
    return lines


def decision_lines(card: DecisionCard, asked: int) -> Iterator[str]:
    """Who decides, what it promises, and on how many of the texts asked for it rests."""
    deciding = ", ".join(card.enforced)
    if card.policy in ("any", "all"):
        deciding = f"{card.policy} of {deciding}"
    shadow = f"; in shadow: {', '.join(card.shadow)}" if card.shadow else ""
    advice = f"; {_TEXTS_ADVISED} or more are advised" if card.n < _TEXTS_ADVISED else ""
    yield f"guard: flags where {deciding} does{shadow}; {card.n} clean prompts{advice}"
    if card.n < asked:
        yield (
            f"    {asked - card.n} of {asked} clean prompts are left out: a detector was fitted on "
            "them, or on their prompt with another answer, or could not read them"
        )
    if not card.promised:
        yield "    a published threshold decides: no share of flagged clean traffic is promised"
        return
    yield (
        f"    target {100 * card.target_fpr:g} % of clean traffic like this; the realised share "
        f"lies within {_interval(card.fpr_interval)} (95 %)"
    )
    for name, domain in sorted(card.domains.items()):
        own = (
            f"thresholds of its own, {_interval(domain.fpr_interval)}"
            if domain.thresholds
            else "too few for thresholds of its own; those of all traffic decide"
        )
        yield f"    domain {name}: {domain.n} clean prompts, {own}"


def _interval(interval: tuple[float, ...]) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{low:.2g} and {high:.2g} %"
