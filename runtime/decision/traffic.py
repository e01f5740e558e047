"""Detects that traffic as a whole has left the calibration rows: a conformal test martingale.

A guard's p-value is the number of one of n + 1 blocks between n clean texts, divided by n + 1
(``runtime/decision/blocks.py``). If texts are exchangeable with the clean ones, the probabilities
of the blocks are Dirichlet(1, ..., 1). Given the k earlier texts, the next one therefore falls into
block b with probability (1 + c_b) / (n + 1 + k), if c_b of them fell into b. Blocks are counted in
at most ``BINS`` bins.

A bet (``runtime/decision/betting.py``) is a density g on [0, 1] with antiderivative G. The next
text's bin covers an interval [a, b] of the predicted distribution, and the bet pays
(G(b) - G(a)) / (b - a): 1 in the mean, whatever the bins' sizes, so the discrete p-values need no
random numbers. The wealth of all bets is a martingale. Texts that repeat a clean text exactly,
score for score, take the larger of two p-values, which the bets on large ones notice if there are
many. During an alarm the predicted distribution is that of the clean texts alone, and after it the
counts start again: what drifted is never learned as normal.

Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", section 7.1; Vovk, Nouretdinov
and Gammerman, "Testing exchangeability on-line", ICML 2003; Fedorova et al., "Plug-in martingales
for testing exchangeability on-line", ICML 2012.
"""

from collections.abc import Callable, Mapping
from functools import partial

from layerguard.runtime.decision.betting import ALPHA, Bets
from layerguard.runtime.decision.sources import SourceMonitor

BINS = 20
"""Most bins of p-values."""

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
        bets: the bets against the clean texts.
    """

    def __init__(self, clean_texts: int, alarm_at: float = 1 / ALPHA) -> None:
        """Start without texts.

        Args:
            clean_texts: number of clean texts that p-values are measured against.
            alarm_at: the wealth that raises the alarm.
        """
        self._blocks = clean_texts + 1
        bins = min(BINS, self._blocks)
        self._clean = [0] * bins
        for block in range(self._blocks):
            self._clean[block * bins // self._blocks] += 1
        self._counts = list(self._clean)
        self.n, self.bets = 0, Bets(len(_BETS), alarm_at)

    @property
    def drifting(self) -> bool:
        """Whether the p-values no longer match the clean texts, and have not returned."""
        return self.bets.drifting

    @property
    def e_value(self) -> float:
        """The largest wealth since the start, or since the last alarm ended."""
        return self.bets.e_value

    def update(self, p_value: float) -> None:
        """Count a text with this p-value, a multiple of 1 / (clean texts + 1)."""
        block = round(p_value * self._blocks) - 1
        chosen = block * len(self._counts) // self._blocks
        total = sum(self._counts)
        low = sum(self._counts[:chosen]) / total
        high = (sum(self._counts[:chosen]) + self._counts[chosen]) / total
        self.n += 1
        self.bets.update([(bet(high) - bet(low)) / (high - low) for bet in _BETS])
        if self.drifting:
            self._counts = list(self._clean)
        else:
            self._counts[chosen] += 1


class TrafficMonitor(SourceMonitor[TrafficMartingale]):
    """Watches the p-values of a guard's traffic by source; texts of too many are not counted.

    ``drifting`` names the sources whose p-values do not match the clean texts. A source leaves it
    when its p-values match them again; ``sources[name].bets.alarms`` still counts the alarm.
    """

    def __init__(self, clean_texts: Mapping[str | None, int]) -> None:
        """Start without texts.

        Args:
            clean_texts: number of clean texts that p-values are measured against, by domain; None
                for all traffic. Empty if the guard has no calibrated p-value.
        """
        self._clean_texts = dict(clean_texts)
        super().__init__()

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
            if self._place(source) == source:
                start = partial(TrafficMartingale, self._clean_texts[domain])
                self._watch(source, start).update(p_value)
