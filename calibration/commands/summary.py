"""Output lines that several calibration commands share."""

from collections.abc import Iterator

from layerguard.calibration.calibrator import METHOD_REASON
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.manifest import DetectorCard
from layerguard.runtime.detectors import REGISTRY

_TEXTS_ADVISED = 200


def detector_line(name: str, card: DetectorCard) -> str:
    """A line on one fitted detector; it says why its method was used if nobody chose it."""
    reason = card.settings.get(METHOD_REASON)
    default = f" (default: {reason})" if reason else ""
    return f"{name}: {card.method}, {card.n} rows, threshold {card.threshold:.4g}{default}"


def removed_line(file: str) -> str:
    """A line on a file that was deleted with the old detectors, with the command for a new one."""
    command = "sign" if file == SIGNATURE else "fuse"
    return f"{file} fell away: `layerguard {command}` makes a new one"


def decision_lines(card: DecisionCard, texts: int) -> Iterator[str]:
    """Lines on the deciding detectors, the promised rate, and the share of ``texts`` used."""
    deciding = ", ".join(card.enforced)
    if card.policy in ("any", "all"):
        deciding = f"{card.policy} of {deciding}"
    kept_out = [name for name in card.shadow if REGISTRY[name].decides]
    shadow = f"; in shadow: {', '.join(kept_out)}" if kept_out else ""
    advice = f"; {_TEXTS_ADVISED} or more are advised" if card.n < _TEXTS_ADVISED else ""
    yield f"guard: flags where {deciding} does{shadow}; {card.n} clean prompts{advice}"
    if card.n < texts:
        yield (
            f"    {texts - card.n} of {texts} clean prompts are left out: a detector was fitted on "
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
