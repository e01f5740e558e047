"""One statistic for each source of traffic, of bounded number and thread-safe."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from layerguard.runtime.decision.betting import ALPHA
from layerguard.runtime.model.forking import renew_after_fork

MOST_SOURCES = 64
"""Most sources that are watched one by one; there is always room for traffic without a source."""


class Watched(Protocol):
    """What is known of one source."""

    @property
    def drifting(self) -> bool:
        """Whether its traffic has changed."""


Statistic = TypeVar("Statistic", bound=Watched)


class SourceMonitor(Generic[Statistic]):
    """Watches the traffic of each source; thread-safe, of bounded size.

    The alarm level of the k-th source is ``ALPHA`` / (k (k + 1)). A guard whose traffic is normal
    therefore ever alarms, for any source, with probability at most ``ALPHA``.

    Attributes:
        sources: the statistic of each source; None is traffic without a source.
    """

    def __init__(self) -> None:
        self.renew()
        self.reset()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget all texts, sources and alarms."""
        with self._lock:
            self.sources: dict[str | None, Statistic] = {}

    @property
    def drifting(self) -> tuple[str | None, ...]:
        """The sources whose traffic has changed."""
        with self._lock:
            return tuple(name for name, own in self.sources.items() if own.drifting)

    def _place(self, source: str | None) -> str | None:
        """The source, or None if it is one too many; for a caller that holds the lock."""
        return source if source in self.sources or len(self.sources) < MOST_SOURCES else None

    def _watch(self, source: str | None, start: Callable[[float], Statistic]) -> Statistic:
        """The statistic of a source, for a caller that holds the lock.

        ``start`` makes that of a new source from the wealth at which it alarms.
        """
        if source not in self.sources:
            rank = len(self.sources) + 1
            self.sources[source] = start(rank * (rank + 1) / ALPHA)
        return self.sources[source]
