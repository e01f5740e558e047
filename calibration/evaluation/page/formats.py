"""Numbers as the text of a page."""

from layerguard.calibration.evaluation.rates import Rate


def per_cent(share: float | None) -> str:
    """A share such as ``12.3 %``; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def percentage(share: float | None) -> str:
    """A share in per cent, for a column whose heading says so; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def with_interval(rate: Rate | None) -> str:
    """A rate in per cent with its interval, such as ``12.3 (9.0 to 16.2)``."""
    if rate is None:
        return "-"
    return f"{100 * rate.share:.1f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def counted(rate: Rate) -> str:
    """A rate in per cent with its numbers, such as ``12 % (42 of 340)``."""
    return f"{100 * rate.share:.3g} % ({rate.flagged} of {rate.n})"


def decimal(value: float | None) -> str:
    """Three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def plural(count: int, noun: str) -> str:
    """A number with its noun, such as ``1 row`` or ``2 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
