"""The mode that sets the thresholds of LCF, WeightWatch and delta where the user names none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from layerguard.calibration.defaults import Mode
from layerguard.calibration.rows.folds import LEAST_SOURCES
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import LEAST_TEXTS
from layerguard.runtime.rows.jsonl import Row

SOURCES_FOR_DEFAULT = LEAST_SOURCES + 1
"""Fewest sources for ``by-source``: each is left out to measure the votes, and the rest needs 3."""


@dataclass(frozen=True, slots=True)
class ChosenMode:
    """A mode.

    Attributes:
        mode: how thresholds are set.
        reason: why, for the summary and the manifest; empty if the user named the mode.
    """

    mode: Mode
    reason: str


def chosen_mode(asked: Mode | None, clean: Sequence[Row]) -> ChosenMode:
    """The mode that was asked for; else ``by-source`` if the rows name enough sources.

    A ``domain`` does not count: it may have thresholds of its own, for traffic that was seen.

    Args:
        asked: the user's mode, or None.
        clean: the clean rows that the detectors are fitted to.
    """
    if asked is not None:
        return ChosenMode(asked, "")
    source_of_text: dict[str, str | None] = {}
    for row in clean:  # as in the folds, a text counts to the source of its first row
        source_of_text.setdefault(prompt_group(row), row.source)
    texts = Counter(source for source in source_of_text.values() if source)
    count = sum(n >= LEAST_TEXTS for n in texts.values())
    found = f"the clean rows name {count} sources of {LEAST_TEXTS} texts or more"
    if count >= SOURCES_FOR_DEFAULT:
        return ChosenMode("by-source", found)
    return ChosenMode("cross-fit", f"{found}; by-source needs {SOURCES_FOR_DEFAULT}")
