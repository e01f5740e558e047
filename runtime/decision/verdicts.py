"""Makes verdicts from the readings of a text and counts them as traffic."""

from collections.abc import Mapping

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.flag_rate import FlagRateMonitor
from layerguard.runtime.decision.policy import Decided, Decision
from layerguard.runtime.decision.traffic import TrafficMonitor
from layerguard.runtime.types import OnUnfamiliar, Reading, Status, Verdict, decision_of


class Verdicts:
    """Makes a guard's verdicts.

    Attributes:
        decision: combines the detectors' readings into one decision.
        monitor: compares the share of flagged texts with the target.
        traffic: compares the p-values of all texts with those of the clean texts.
    """

    def __init__(self, bundle: Bundle, on_unfamiliar: OnUnfamiliar | None = None) -> None:
        """``on_unfamiliar`` replaces the bundle's own, if it is not None."""
        self._bundle_id = bundle.id
        self.decision = Decision(bundle)
        self._on_unfamiliar = on_unfamiliar or self.decision.on_unfamiliar
        self.monitor = FlagRateMonitor(self.decision.promised)
        self.traffic = TrafficMonitor(self.decision.clean_texts)

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
            self.count(decided, domain)
        drifting, on_unfamiliar = self.monitor.drifting, self._on_unfamiliar
        return Verdict(
            flagged=decided.flagged or (decided.unfamiliar and on_unfamiliar == "flag"),
            status=_status(decided, drifting=drifting),
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
            familiarity=decided.familiarity,
            unfamiliar=decided.unfamiliar,
            on_unfamiliar=on_unfamiliar,
            ask=decided.unfamiliar and on_unfamiliar == "ask",
        )

    def count(self, decided: Decided | Verdict, source: str | None) -> None:
        """Count one text; ``source`` is the kind of traffic that the caller named."""
        deciding = [decided.readings[name] for name in self.decision.enforced]
        flagged, _ = decision_of(deciding, self.decision.policy)
        self.monitor.update(flagged=flagged, domain=decided.domain, unfamiliar=decided.unfamiliar)
        self.traffic.update(decided.p_value, source, decided.domain)

    def _drift(self) -> str:
        """One sentence about the drift that the monitor detected."""
        low, high = (f"{bound:.2%}" for bound in self.decision.promised[None])
        return (
            f"drifting: {self.monitor.rate:.2%} of {self.monitor.n} texts were flagged, {low} to "
            f"{high} were expected (run `layerguard recalibrate`)"
        )


def _status(decided: Decided, *, drifting: bool) -> Status:
    if decided.invalid:
        return "invalid"
    if drifting:
        return "drifting"
    return "unfamiliar" if decided.unfamiliar else "ok"
