"""Detects that the share of flagged traffic has left the calibrated interval.

The bets (``runtime/decision/betting.py``) are that texts are flagged more often than the upper end
of the calibrated interval (``fpr_interval``), or less often than the lower end. Each bet assumes
certain odds of a flag. The mean factor is at most 1 while the probability of a flag, given the
earlier texts, lies within the interval.
"""

from collections import deque
from collections.abc import Mapping

from layerguard.runtime.decision.betting import ALPHA, LEAST_TEXTS, Bets
from layerguard.runtime.decision.sources import SourceMonitor

_TIMES = (1.3, 1.8, 3.0, 6.0, 15.0)
"""The bets: the odds of a flag are this many times those at the upper end of the interval, or this
many times smaller than those at its lower end."""

Interval = tuple[float, float]

Factors = tuple[list[float], list[float]]
"""What each bet pays if a text is flagged, and if it is not."""


class FlagRate:
    """The flags of one source's texts; constant size, not thread-safe.

    Attributes:
        n: number of texts counted.
        flagged: number of texts that the detectors flagged.
        unfamiliar: number of texts unlike the calibration rows, whether flagged or not.
        recent: whether each of the last ``LEAST_TEXTS`` texts was flagged, oldest first.
        bets: the bets against the interval.
    """

    def __init__(self, alarm_at: float = 1 / ALPHA) -> None:
        """Start without texts; ``alarm_at`` is the wealth that raises the alarm."""
        self.n, self.flagged, self.unfamiliar = 0, 0, 0
        self.recent: deque[bool] = deque(maxlen=LEAST_TEXTS)
        self.bets = Bets(2 * len(_TIMES), alarm_at)

    @property
    def drifting(self) -> bool:
        """Whether the share of flagged texts has left the interval, and has not returned."""
        return self.bets.drifting

    def update(self, factors: Factors, *, flagged: bool, unfamiliar: bool = False) -> None:
        """Count one text, whose bets pay ``factors``."""
        self.n += 1
        self.flagged += flagged
        self.unfamiliar += unfamiliar
        self.recent.append(flagged)
        self.bets.update(factors[0 if flagged else 1])


class FlagRateMonitor(SourceMonitor[FlagRate]):
    """Compares the flag rate of one guard's traffic with its interval, for each source.

    ``drifting`` names the sources whose share of flagged texts has left the interval. A source
    leaves it when its share is back; ``sources[name].bets.alarms`` still counts the alarm. Sources
    after the first ``MOST_SOURCES`` are counted together, as traffic without a source.
    """

    def __init__(self, promised: Mapping[str | None, Interval]) -> None:
        """Start without texts.

        Args:
            promised: interval of the share of flagged texts by domain, None for all traffic; with
                [0, 1] there is no guarantee and no drift.
        """
        self._factors = {domain: _factors(*interval) for domain, interval in promised.items()}
        super().__init__()

    @property
    def n(self) -> int:
        """Number of texts counted, of all sources."""
        return sum(own.n for own in self._all())

    @property
    def flagged(self) -> int:
        """Number of texts that the detectors flagged, of all sources."""
        return sum(own.flagged for own in self._all())

    @property
    def unfamiliar(self) -> int:
        """Number of texts unlike the calibration rows, of all sources, whether flagged or not."""
        return sum(own.unfamiliar for own in self._all())

    @property
    def rate(self) -> float:
        """Share of flagged texts of all sources; 0 before the first text."""
        n = self.n
        return self.flagged / n if n else 0.0

    def drift(self, source: str | None) -> tuple[int, int] | None:
        """If a source is drifting: how many of its last texts were flagged, and of how many."""
        with self._lock:
            own = self.sources.get(self._place(source))
            if own is None or not own.drifting:
                return None
            return sum(own.recent), len(own.recent)

    def update(
        self,
        *,
        flagged: bool,
        source: str | None = None,
        domain: str | None = None,
        unfamiliar: bool = False,
    ) -> None:
        """Count one text.

        Args:
            flagged: whether the detectors flagged it, at the thresholds of ``domain``.
            source: where the text comes from, as the caller names it.
            domain: the domain whose interval holds; an unknown one is all traffic.
            unfamiliar: whether it is unlike the calibration rows.
        """
        factors = self._factors[domain if domain in self._factors else None]
        with self._lock:
            own = self._watch(self._place(source), FlagRate)
            own.update(factors, flagged=flagged, unfamiliar=unfamiliar)

    def _all(self) -> list[FlagRate]:
        with self._lock:
            return list(self.sources.values())


def _factors(low: float, high: float) -> Factors:
    """What each bet pays if a text is flagged, and if it is not.

    A bet of q against p pays q / p or (1 - q) / (1 - p): 1 in the mean if p is the probability, and
    less if the probability is farther from q. Without a bound on its side it always pays 1.
    """
    shares = [(high, _share(high, times)) for times in _TIMES]
    shares += [(low, _share(low, 1 / times)) for times in _TIMES]
    flagged = [q / p if p else 1.0 for p, q in shares]
    passed = [(1 - q) / (1 - p) if p < 1 else 1.0 for p, q in shares]
    return flagged, passed


def _share(share: float, times: float) -> float:
    """The share whose odds are ``times`` those of ``share``."""
    return times * share / (times * share + 1 - share)
