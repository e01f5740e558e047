"""Makes verdicts from the readings of a text and counts them as traffic."""

from collections.abc import Mapping

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.flag_rate import FlagRateMonitor
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.types import Reading, Verdict


class Verdicts:
    """Makes a guard's verdicts.

    Attributes:
        decision: combines the detectors' readings into one decision.
        monitor: compares the share of flagged texts with the target.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle_id = bundle.id
        self.decision = Decision(bundle)
        self.monitor = FlagRateMonitor(self.decision.promised)

    def give(
        self,
        readings: Mapping[str, Reading],
        timings: Mapping[str, float],
        *,
        tokens: int,
        truncated: bool,
        domain: str | None = None,
        counted: bool = True,
    ) -> Verdict:
        """The verdict for the readings of one text; the monitor counts it if ``counted``."""
        decided = self.decision.decide(readings, domain)
        if counted:
            self.count(flagged=decided.flagged, domain=decided.domain)
        drifting = self.monitor.drifting
        return Verdict(
            flagged=decided.flagged,
            status="invalid" if decided.invalid else "drifting" if drifting else "ok",
            reason=f"{decided.reason}; {self._drift()}" if drifting else decided.reason,
            readings=decided.readings,
            timings_ms=timings,
            bundle_id=self._bundle_id,
            tokens=tokens,
            truncated=truncated,
            policy=self.decision.policy,
            shadow=self.decision.shadow,
            p_value=decided.p_value,
            domain=decided.domain,
        )

    def count(self, *, flagged: bool, domain: str | None) -> None:
        """Count one text."""
        self.monitor.update(flagged=flagged, domain=domain)

    def _drift(self) -> str:
        """One sentence about the drift that the monitor detected."""
        low, high = (f"{bound:.2%}" for bound in self.decision.promised[None])
        return (
            f"drifting: {self.monitor.rate:.2%} of {self.monitor.n} texts were flagged, {low} to "
            f"{high} were expected (run `layerguard recalibrate`)"
        )
