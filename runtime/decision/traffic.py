"""Detects that traffic as a whole has left the calibration rows: a conformal test martingale.

A guard's p-value is the number of one of n + 1 blocks between n clean texts, divided by n + 1
(``runtime/decision/blocks.py``). If texts are exchangeable with the clean ones, the probabilities
of the blocks are Dirichlet(1, ..., 1). Given the k earlier texts, the next one therefore falls into
block b with probability (1 + c_b) / (n + 1 + k), if c_b of them fell into b. Blocks are counted in
at most ``BINS`` bins.

A bet is a density g on [0, 1] with antiderivative G. The next text's bin covers an interval
[a, b] of the predicted distribution, and the bet pays (G(b) - G(a)) / (b - a): 1 in the mean,
whatever the bins' sizes, so the discrete p-values need no random numbers. A share 1 / (k (k + 1))
of each bet's stake is placed with text k, so that the delay stays short after a long quiet period.
The wealth of all bets is a martingale that starts at 1. By Ville's inequality it ever reaches 1 / a
with probability at most a. Texts that repeat a clean text exactly, score for score, take the larger
of two p-values, which the bets on large ones notice if there are many.

Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", section 7.1; Vovk, Nouretdinov
and Gammerman, "Testing exchangeability on-line", ICML 2003; Fedorova et al., "Plug-in martingales
for testing exchangeability on-line", ICML 2012.
"""

import threading
from collections.abc import Callable, Mapping

from layerguard.runtime.decision.flag_rate import ALPHA
from layerguard.runtime.model.forking import renew_after_fork

BINS = 20
"""Most bins of p-values."""

MOST_SOURCES = 64
"""Most sources that are watched; texts of later ones are not counted."""

_BETS: tuple[Callable[[float], float], ...] = (
    lambda p: p**0.5,
    lambda p: p**0.8,
    lambda p: 1 - (1 - p) ** 0.5,
    lambda p: 1 - (1 - p) ** 0.8,
    lambda p: p * p * (3 - 2 * p),
    lambda p: p * (2 - p * (3 - 2 * p)),
)
"""The antiderivatives of the densities: small p-values, large ones, the middle, both ends."""


class TrafficMartingale:
    """The wealth of the bets against one stream of p-values; not thread-safe.

    Attributes:
        n: number of texts counted.
        e_value: the largest wealth so far.
    """

    def __init__(self, clean_texts: int) -> None:
        """Start without texts; ``clean_texts`` is the number that p-values are measured against."""
        self._blocks = clean_texts + 1
        bins = min(BINS, self._blocks)
        self._counts = [0] * bins
        for block in range(self._blocks):
            self._counts[block * bins // self._blocks] += 1
        self._wealth = [0.0] * len(_BETS)
        self.n, self.e_value = 0, 1.0

    def update(self, p_value: float) -> None:
        """Count a text with this p-value, a multiple of 1 / (clean texts + 1)."""
        block = round(p_value * self._blocks) - 1
        chosen = block * len(self._counts) // self._blocks
        total = self._blocks + self.n
        low = sum(self._counts[:chosen]) / total
        high = (sum(self._counts[:chosen]) + self._counts[chosen]) / total
        self.n += 1
        stake = 1 / (self.n * (self.n + 1) * len(_BETS))
        self._wealth = [
            (wealth + stake) * (bet(high) - bet(low)) / (high - low)
            for wealth, bet in zip(self._wealth, _BETS, strict=True)
        ]
        self._counts[chosen] += 1
        self.e_value = max(self.e_value, sum(self._wealth) + 1 / (self.n + 1))


class TrafficMonitor:
    """Watches the p-values of a guard's traffic by source; thread-safe, of bounded size.

    The alarm level of the k-th source is ``ALPHA`` / (k (k + 1)). A guard whose traffic is
    exchangeable with its clean texts therefore ever alarms, for any source, with probability at
    most ``ALPHA``.

    Attributes:
        sources: the martingale of each source; None is traffic without a source.
    """

    def __init__(self, clean_texts: Mapping[str | None, int]) -> None:
        """Start without texts.

        Args:
            clean_texts: number of clean texts that p-values are measured against, by domain; None
                for all traffic. Empty if the guard has no calibrated p-value.
        """
        self._clean_texts = dict(clean_texts)
        self.renew()
        self.reset()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget all texts and sources."""
        with self._lock:
            self.sources: dict[str | None, TrafficMartingale] = {}

    @property
    def drifting(self) -> tuple[str | None, ...]:
        """The sources whose p-values do not match the clean texts; they stay until ``reset``."""
        with self._lock:
            ranked = enumerate(self.sources.items(), 1)
            return tuple(
                source
                for rank, (source, martingale) in ranked
                if martingale.e_value * ALPHA >= rank * (rank + 1)
            )

    def update(self, p_value: float | None, source: str | None, domain: str | None = None) -> None:
        """Count one text.

        Args:
            p_value: the guard's p-value; None is not counted.
            source: where the text comes from, as the caller names it.
            domain: the domain whose clean texts the p-value is measured against.
        """
        if p_value is None:
            return
        with self._lock:
            if source not in self.sources and len(self.sources) < MOST_SOURCES:
                self.sources[source] = TrafficMartingale(self._clean_texts[domain])
            if source in self.sources:
                self.sources[source].update(p_value)
