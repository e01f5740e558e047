"""Formats verdicts and tables as text."""

import shutil
from collections.abc import Iterator, Sequence

from layerguard.runtime.types import Verdict


def verdict_lines(name: str, verdict: Verdict) -> Iterator[str]:
    """The lines of one verdict: one for the decision, one for each detector's reading."""
    truncated = ", truncated" if verdict.truncated else ""
    p_value = "" if verdict.p_value is None else f"p {verdict.p_value:.4f}, "
    domain = "" if verdict.domain is None else f", domain {verdict.domain}"
    yield (
        f"{name}: {word(verdict)}  {verdict.reason}  [{p_value}"
        f"{verdict.timings_ms['total']:.1f} ms, {verdict.tokens} tokens{truncated}{domain}]"
    )
    if verdict.unread:
        yield f"    unread: {shorten(', '.join(verdict.unread), 300)}"
    for reading in verdict.readings.values():
        decision = "FLAG" if reading.flagged else "ok"
        if reading.detector in verdict.shadow:
            decision += " (shadow: does not decide)"
        yield (
            f"    {reading.detector:<8} score {reading.score:9.4f}   threshold "
            f"{reading.threshold:9.4f}   p {reading.p_value:.4f}   {decision}"
        )
        for part in reading.spans:
            yield f"             characters {part.start} to {part.end}: {shorten(part.words, 120)}"


def word(verdict: Verdict) -> str:
    """The decision in one word."""
    if verdict.status == "invalid":
        return "INVALID"
    return "FLAGGED" if verdict.flagged else "ok"


def shorten(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def render(header: Sequence[str], rows: Sequence[Sequence[str]], text_column: int = 0) -> str:
    """A table with aligned columns; ``text_column`` is shortened if the terminal is narrow."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    spare = shutil.get_terminal_size((160, 24)).columns - sum(widths) - 2 * (len(widths) - 1)
    if spare < 0:
        widths[text_column] = max(24, widths[text_column] + spare)
    lines = [
        "  ".join(
            shorten(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
