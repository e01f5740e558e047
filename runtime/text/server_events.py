"""Server-sent events (HTML standard, "Server-sent events"): where they end, and their data."""

import re

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_MARK = b"\xef\xbb\xbf"
"""A byte order mark, which readers skip at the beginning."""


def split_events(data: bytes, start: int = 0) -> list[bytes]:
    """The events with the blank lines that end them, and the rest.

    Args:
        data: any number of events.
        start: no event ends before.
    """
    ends = [0, *(match.end() for match in _END.finditer(data, start))]
    return [data[a:b] for a, b in zip(ends, [*ends[1:], len(data)], strict=True)]


def data_of(event: bytes) -> bytes:
    """The data of an event; empty of a comment."""
    lines = (line.partition(b":") for line in event.removeprefix(_MARK).splitlines())
    return b"\n".join(data.removeprefix(b" ") for name, _, data in lines if name == b"data")


class EventReader:
    """Events whose bytes come in any parts.

    Attributes:
        rest: the bytes of an event that has not ended.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.rest = b""

    def feed(self, chunk: bytes, *, last: bool) -> list[bytes]:
        """The events that a chunk ends; with the last one, what is left is an event too."""
        start = max(0, len(self.rest) - 3)
        *events, self.rest = split_events(self.rest + chunk, start)
        if last and self.rest:
            events.append(self.rest)
            self.rest = b""
        return events
