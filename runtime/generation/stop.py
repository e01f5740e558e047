"""Stop strings: find the end of a growing text, and hold back text that may start a stop string."""

from collections.abc import Sequence

from layerguard.runtime.errors import InputError


class StopText:
    """A growing text that ends before the first complete stop string.

    Attributes:
        stopped: whether a stop string was found; no text is released after it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Store the stop strings.

        Raises:
            InputError: a stop string is empty or not a str.
        """
        wrong = [item for item in stop if not isinstance(item, str) or not item]
        if isinstance(stop, str) or wrong:
            raise InputError(f"stop: found {stop!r}; expected a list of texts, none of them empty")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Add text and return all text that cannot be the beginning of a stop string."""
        if self.stopped:
            return ""
        self._held += text
        places = [(stop, self._held.find(stop)) for stop in self._stop]
        ends = [(place + len(stop), place) for stop, place in places if place >= 0]
        if ends:
            self.stopped = True
            return self._release(min(ends)[1])
        return self._release(len(self._held) - self._beginning())

    def finish(self) -> str:
        """End the text and return the part that was held back."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released

    def _beginning(self) -> int:
        """Length of the longest suffix of the held text that is a prefix of a stop string."""
        return max(
            (
                length
                for stop in self._stop
                for length in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:length])
            ),
            default=0,
        )
