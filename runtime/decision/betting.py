"""Bets against a stream of texts: they raise an alarm, and they end it.

A bet pays a factor with each text: the probability of what was seen if the traffic has changed in
one way, divided by its probability for normal traffic. While the traffic is normal, the factor is
at most 1 in the mean. A share 1 / (k (k + 1)) of each bet's stake is placed with text k, so that
the delay stays short after a long quiet period. The wealth of all bets is then a supermartingale
that starts at 1. By Ville's inequality it ever reaches 1 / a with probability at most a, however
often it is checked. No alarm is raised before ``LEAST_TEXTS`` texts, whatever the wealth: the first
texts of a service are often tests.

An alarm ends when the same evidence speaks against it. The bet with the largest wealth is reversed:
it pays 1 / factor, which is at most 1 in the mean while the traffic has changed as that bet
assumes, or more. Before each text its wealth is raised to 1 if it is less (CUSUM). Where it has
reached 1 / ``ALPHA``, ``LEAST_TEXTS`` texts or more after it was last raised, the alarm ends, and
all bets start again. While the change lasts, this takes 1 / ``ALPHA`` texts or more in the mean.

Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference",
arXiv 2210.01948; Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532.
"""

from collections.abc import Sequence

ALPHA = 0.001
"""Probability that normal traffic ever alarms, from a start or from the end of an alarm on."""

LEAST_TEXTS = 100
"""Texts before an alarm is raised, and of normal traffic before it ends. The bets alone could raise
one after three flagged texts, because 0.05 ** 3 is below ``ALPHA``."""


class Bets:
    """Several bets against one stream of texts; constant size, not thread-safe.

    Attributes:
        alarm_at: the wealth that raises the alarm.
        n: number of texts since the start, or since the last alarm ended; during an alarm, since
            it was raised or the traffic last spoke for it.
        e_value: the largest wealth since the start, or since the last alarm ended.
        alarms: number of alarms that were raised.
    """

    def __init__(self, bets: int, alarm_at: float = 1 / ALPHA) -> None:
        """Start without texts."""
        self._bets, self.alarm_at = bets, alarm_at
        self.alarms = 0
        self._start()

    def _start(self) -> None:
        self.n, self.e_value = 0, 1.0
        self._wealth = [0.0] * self._bets
        self._reversed: int | None = None
        self._against = 1.0

    @property
    def drifting(self) -> bool:
        """Whether an alarm was raised and has not ended."""
        return self._reversed is not None

    @property
    def wealth(self) -> float:
        """What all bets are worth now, with the stakes that were not placed yet."""
        return sum(self._wealth) + 1 / (self.n + 1)

    def update(self, factors: Sequence[float]) -> None:
        """Count one text; ``factors`` are what each bet pays, all above 0."""
        self.n += 1
        if self._reversed is None:
            self._seek(factors)
        else:
            self._doubt(factors[self._reversed])

    def _seek(self, factors: Sequence[float]) -> None:
        """Raise the alarm if all bets are worth enough."""
        stake = 1 / (self.n * (self.n + 1) * self._bets)
        self._wealth = [
            (wealth + stake) * factor for wealth, factor in zip(self._wealth, factors, strict=True)
        ]
        self.e_value = max(self.e_value, self.wealth)
        if self.n >= LEAST_TEXTS and self.wealth >= self.alarm_at:
            self.alarms += 1
            self.n, self._against = 0, 1.0
            self._reversed = max(range(self._bets), key=self._wealth.__getitem__)

    def _doubt(self, factor: float) -> None:
        """End the alarm if the reversed bet is worth enough."""
        if self._against < 1:
            self.n, self._against = 1, 1.0
        self._against /= factor
        if self.n >= LEAST_TEXTS and self._against * ALPHA >= 1:
            self._start()
