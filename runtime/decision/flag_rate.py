"""Detects that the share of flagged traffic has left the calibrated interval.

The monitor is a betting test (e-process). It bets that texts are flagged more often than the upper
end of the calibrated interval (``fpr_interval``), or less often than the lower end. Each bet
assumes certain odds of a flag. A share 1 / (k (k + 1)) of its stake is placed with text k, so that
the detection delay stays short after a long quiet period. While the probability of a flag, given
the earlier texts, lies within the interval, the wealth is a supermartingale that starts at 1. By
Ville's inequality it ever reaches 1 / ALPHA with probability at most ALPHA, however often it is
checked.

Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference",
arXiv 2210.01948; Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532.
"""

import threading
from collections.abc import Mapping

from layerguard.runtime.model.forking import renew_after_fork

ALPHA = 0.001
"""Probability that a guard whose share of flagged texts is within its interval ever alarms."""

_TIMES = (1.3, 1.8, 3.0, 6.0, 15.0)
"""The bets: the odds of a flag are this many times those at the upper end of the interval, or this
many times smaller than those at its lower end."""

Interval = tuple[float, float]


class FlagRateMonitor:
    """Compares the flag rate of one guard's traffic with its interval; thread-safe, constant size.

    Attributes:
        n: number of texts counted.
        flagged: number of texts that the detectors flagged.
        unfamiliar: number of texts unlike the calibration rows, whether flagged or not.
        e_value: the largest wealth so far; the traffic is drifting at 1 / ``ALPHA`` or more.
    """

    def __init__(self, promised: Mapping[str | None, Interval]) -> None:
        """Start without texts.

        Args:
            promised: interval of the share of flagged texts by domain, None for all traffic; with
                [0, 1] there is no guarantee and no drift.
        """
        self._bets = {domain: _bets(*interval) for domain, interval in promised.items()}
        self.renew()
        self.reset()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget all texts."""
        with self._lock:
            self.n, self.flagged, self.unfamiliar, self.e_value = 0, 0, 0, 1.0
            self._wealth = [0.0] * (2 * len(_TIMES))

    @property
    def rate(self) -> float:
        """Share of flagged texts; 0 before the first text."""
        return self.flagged / self.n if self.n else 0.0

    @property
    def drifting(self) -> bool:
        """Whether the share of flagged texts has left the interval; stays True until ``reset``."""
        return self.e_value * ALPHA >= 1

    def update(self, *, flagged: bool, domain: str | None = None, unfamiliar: bool = False) -> None:
        """Count one text, flagged or not by the detectors at the thresholds of ``domain``."""
        with self._lock:
            self.n += 1
            self.flagged += flagged
            self.unfamiliar += unfamiliar
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
    """The factors by which each bet's stake is multiplied if a text is flagged, and if it is not.

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
