"""Does live traffic still match the traffic that the guard was calibrated on?

The monitor bets that texts are flagged more often than the top of the interval that the
calibration promised (``fpr_interval``), or more seldom than its bottom. Each bet is on some odds of
a flag; of its stake, 1 / (k (k + 1)) enters with text k, so that the delay stays short after a long
time of peace. While the chance of a flag, given what came before, lies within the interval, the
wealth is a supermartingale that starts at 1, so by Ville's inequality it ever reaches 1 / ALPHA
with chance ALPHA at most, however often it is looked at.

Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference",
arXiv 2210.01948; Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532.
"""

import threading
from collections.abc import Mapping

from layerguard.runtime.model.forking import renew_after_fork

ALPHA = 0.001
"""Chance that a guard whose share of flagged texts is within its interval ever alarms."""

_TIMES = (1.3, 1.8, 3.0, 6.0, 15.0)
"""The bets: that the odds of a flag are so many times those at the top of the interval, or so many
times less than those at its bottom."""

Interval = tuple[float, float]


class Monitor:
    """The flags of one guard's traffic against its promise; thread-safe, of constant size.

    Attributes:
        n: texts counted.
        flagged: of them.
        e_value: the largest wealth so far; 1 / ``ALPHA`` or more is drifting.
    """

    def __init__(self, promised: Mapping[str | None, Interval]) -> None:
        """Begin.

        Args:
            promised: by domain, None for all traffic: where the share of flagged texts lies; [0, 1]
                promises nothing, and nothing can drift.
        """
        self._bets = {domain: _bets(*interval) for domain, interval in promised.items()}
        self.renew()
        self.reset()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked process: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self.n, self.flagged, self.e_value = 0, 0, 1.0
            self._wealth = [0.0] * (2 * len(_TIMES))

    @property
    def rate(self) -> float:
        """Share of the texts that was flagged; 0 before the first."""
        return self.flagged / self.n if self.n else 0.0

    @property
    def drifting(self) -> bool:
        """Whether the share of flagged texts has left the interval; stays so until ``reset``."""
        return self.e_value * ALPHA >= 1

    def update(self, *, flagged: bool, domain: str | None = None) -> None:
        """Count one text, flagged or not at the thresholds of ``domain``."""
        with self._lock:
            self.n += 1
            self.flagged += flagged
            if self.drifting:
                return
            stake = 1 / (self.n * (self.n + 1) * len(self._wealth))
            bets = self._bets[domain if domain in self._bets else None]
            factors = bets[0 if flagged else 1]
            self._wealth = [
                (wealth + stake) * factor
                for wealth, factor in zip(self._wealth, factors, strict=True)
            ]
            self.e_value = max(self.e_value, sum(self._wealth) + 1 / (self.n + 1))


def _bets(low: float, high: float) -> tuple[list[float], list[float]]:
    """What each bet's stake is multiplied by where the text is flagged, and where it is not.

    A bet of q against p pays q / p or (1 - q) / (1 - p): 1 in the mean where p is the chance, and
    less where the chance is farther from q. On a side without a bound it pays 1 whatever comes.
    """
    shares = [(high, _share(high, times)) for times in _TIMES]
    shares += [(low, _share(low, 1 / times)) for times in _TIMES]
    flagged = [q / p if p else 1.0 for p, q in shares]
    passed = [(1 - q) / (1 - p) if p < 1 else 1.0 for p, q in shares]
    return flagged, passed


def _share(share: float, times: float) -> float:
    """The share whose odds are so many times those of ``share``."""
    return times * share / (times * share + 1 - share)
