"""Reads some rows of a pass of the graph."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.states.passes import Reader, Reduction
from layerguard.runtime.model.backbone import PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Tap

Choice = Callable[[Row], bool]
"""Whether a row is read; it can be pickled."""


@dataclass(frozen=True, slots=True)
class Harmful:
    """Chooses the rows of label 1, apart from those of some texts."""

    unless: frozenset[str] = frozenset()

    def __call__(self, row: Row) -> bool:
        """Whether a row is read."""
        return row.label == 1 and prompt_group(row) not in self.unless


class ChosenRows:
    """A ``Reader`` that passes some rows on to another reader, and reports no unused row.

    Attributes:
        reduction: reduces these rows.
    """

    def __init__(self, reader: Reader, chosen: Choice) -> None:
        """Pass on the rows for which ``chosen`` is true."""
        self._reader = reader
        self.reduction: Reduction = _OfChosen(reader.reduction, chosen)

    def add(self, rows: Sequence[Row], kept: Any) -> list[str]:
        """See ``Reader``."""
        places, of_chosen = kept
        if places:
            self._reader.add([rows[place] for place in places], of_chosen)
        return []


@dataclass(frozen=True, slots=True)
class _OfChosen:
    """Keeps what another reduction keeps of the chosen rows, and their places."""

    reduction: Reduction
    chosen: Choice

    @property
    def taps(self) -> Collection[Tap]:
        """See ``Reduction``."""
        return self.reduction.taps

    def __call__(
        self, rows: Sequence[Row], pooled: PooledStates, reader: TokenReader
    ) -> tuple[list[int], Any]:
        places = [place for place, row in enumerate(rows) if self.chosen(row)]
        if not places:
            return [], None
        some = replace(
            pooled,
            rows={
                source: [windows[place] for place in places]
                for source, windows in pooled.rows.items()
            },
            tokens=tuple(pooled.tokens[place] for place in places),
            truncated=tuple(pooled.truncated[place] for place in places),
        )
        return places, self.reduction([rows[place] for place in places], some, reader)
