"""Stop strings: where the text ends, and how much of it may leave before that is known."""

from collections.abc import Sequence

from layerguard.runtime.errors import InputError


class StopText:
    """Text that grows, in pieces, and ends before the stop string that is complete first.

    Attributes:
        stopped: whether a stop string was found; nothing leaves after it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Settle the stop strings.

        Raises:
            InputError: one of them is empty or no text.
        """
        wrong = [item for item in stop if not isinstance(item, str) or not item]
        if isinstance(stop, str) or wrong:
            raise InputError(f"stop: found {stop!r}; expected a list of texts, none of them empty")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may leave now: all but what could be the beginning of a stop string."""
        if self.stopped:
            return ""
        self._held += text
        places = [(stop, self._held.find(stop)) for stop in self._stop]
        found = [(place + len(stop), place) for stop, place in places if place >= 0]
        if found:
            self.stopped = True
            return self._release(min(found)[1])
        return self._release(len(self._held) - self._beginning())

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released

    def _beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        return max(
            (
                length
                for stop in self._stop
                for length in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:length])
            ),
            default=0,
        )
