"""Where a detector that reads windows found what it flagged: from tokens to characters."""

from dataclasses import replace

from layerguard.runtime.text.tokens import Places
from layerguard.runtime.types import Array, Probe, Reading, Span


def with_words(
    reading: Reading, probe: Probe, windows: Array, text: str, places: Places
) -> Reading:
    """The reading with the words of its best window.

    Args:
        reading: a reading of one row.
        probe: the probe of the detector's tap.
        windows: what the probe read of the row.
        text: the text of the row.
        places: for each token of the row, its characters in the text.
    """
    first, end = probe.place(windows)
    held = [place for place in places[first:end] if place[0] < place[1]]
    if not held:
        return reading
    start, stop = held[0][0], max(place[1] for place in held)
    return replace(reading, spans=(Span(start, stop, text[start:stop], reading.score),))
