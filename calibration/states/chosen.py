"""Reads some rows of a pass of the graph."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from layerguard.calibration.states.collect import Reader
from layerguard.runtime.model.backbone import PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Tap


class ChosenRows:
    """A ``Reader`` that passes some rows on to another reader, and reports no unused row."""

    def __init__(self, reader: Reader, chosen: Callable[[Row], bool]) -> None:
        """Pass on the rows for which ``chosen`` is true."""
        self._reader, self._chosen = reader, chosen

    @property
    def taps(self) -> Collection[Tap]:
        """See ``Reader``."""
        return self._reader.taps

    def take(self, rows: Sequence[Row], pooled: PooledStates) -> list[str]:
        """See ``Reader``."""
        places = [place for place, row in enumerate(rows) if self._chosen(row)]
        if places:
            some = replace(
                pooled,
                rows={
                    source: [windows[place] for place in places]
                    for source, windows in pooled.rows.items()
                },
                tokens=tuple(pooled.tokens[place] for place in places),
                truncated=tuple(pooled.truncated[place] for place in places),
            )
            self._reader.take([rows[place] for place in places], some)
        return []
