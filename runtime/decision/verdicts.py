"""Makes verdicts from the readings of a text and counts them as traffic."""

from collections.abc import Iterator, Mapping

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.flag_rate import FlagRateMonitor
from layerguard.runtime.decision.policy import Decided, Decision
from layerguard.runtime.decision.traffic import TrafficMonitor
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import (
    OnUnfamiliar,
    OnUnread,
    Reading,
    Status,
    Verdict,
    decision_of,
)


class Verdicts:
    """Makes a guard's verdicts.

    Attributes:
        decision: combines the detectors' readings into one decision.
        monitor: compares the share of flagged texts with the target.
        traffic: compares the p-values of all texts with those of the clean texts.
    """

    def __init__(
        self,
        bundle: Bundle,
        on_unfamiliar: OnUnfamiliar | None = None,
        on_unread: OnUnread | None = None,
    ) -> None:
        """``on_unfamiliar`` and ``on_unread`` replace the bundle's own, if they are not None."""
        self._bundle_id = bundle.id
        self.decision = Decision(bundle)
        self._on_unfamiliar = on_unfamiliar or self.decision.on_unfamiliar
        self.on_unread: OnUnread = on_unread or bundle.manifest.text.on_unread
        self.monitor = FlagRateMonitor(self.decision.promised)
        self.traffic = TrafficMonitor(self.decision.clean_texts)

    def give(
        self,
        readings: Mapping[str, Reading],
        timings: Mapping[str, float],
        *,
        tokens: int,
        truncated: bool,
        unread: tuple[str, ...] = (),
        domain: str | None = None,
        counted: bool = True,
    ) -> Verdict:
        """The verdict for the readings of one text; the monitor counts it if ``counted``.

        Raises:
            InputError: parts of the request are unread, and such requests are refused.
        """
        self.check_unread(unread)
        decided = self.decision.decide(readings, domain)
        if counted:
            self.count(decided, domain)
        drift, on_unfamiliar = self._drift(domain, decided.domain), self._on_unfamiliar
        return Verdict(
            flagged=decided.flagged
            or (decided.unfamiliar and on_unfamiliar == "flag")
            or (bool(unread) and self.on_unread == "flag"),
            status=_status(decided, drifting=bool(drift), unread=unread),
            reason="; ".join(self._reasons(decided, unread, drift)),
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
            unread=unread,
            on_unread=self.on_unread,
        )

    def check_unread(self, unread: tuple[str, ...]) -> None:
        """Refuse a request with unread parts, if the guard refuses those.

        Raises:
            InputError: there are such parts.
        """
        if unread and self.on_unread == "refuse":
            raise InputError(
                f"found {_listed(unread)}, which no detector of the bundle can read; expected only "
                'text that they read, or a guard that was loaded with on_unread="flag" or "allow"'
            )

    def count(self, decided: Decided | Verdict, source: str | None) -> None:
        """Count one text; ``source`` is the kind of traffic that the caller named."""
        deciding = [decided.readings[name] for name in self.decision.enforced]
        flagged, _ = decision_of(deciding, self.decision.policy)
        self.monitor.update(
            flagged=flagged, source=source, domain=decided.domain, unfamiliar=decided.unfamiliar
        )
        self.traffic.update(decided.p_value, source, decided.domain)

    def _reasons(self, decided: Decided, unread: tuple[str, ...], drift: str) -> Iterator[str]:
        yield decided.reason
        if unread:
            yield f"no detector can read {_listed(unread)} (on_unread: {self.on_unread})"
        if drift:
            yield drift

    def _drift(self, source: str | None, domain: str | None) -> str:
        """What drifts in the traffic of a source; empty if nothing does."""
        drift = self.monitor.drift(source)
        if drift is None:
            return ""
        flagged, texts = drift
        low, high = (f"{bound:.2%}" for bound in self.decision.promised[domain])
        of = "" if source is None else f" of domain {source!r}"
        return (
            f"drifting: {flagged} of the last {texts} texts{of} were flagged, {low} to {high} were "
            "expected (run `layerguard recalibrate`)"
        )


_LISTED = 5


def _listed(unread: tuple[str, ...]) -> str:
    """The first unread parts, and how many more there are."""
    more = len(unread) - _LISTED
    return ", ".join(unread[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _status(decided: Decided, *, drifting: bool, unread: tuple[str, ...]) -> Status:
    if decided.invalid:
        return "invalid"
    if unread:
        return "unread"
    if drifting:
        return "drifting"
    return "unfamiliar" if decided.unfamiliar else "ok"
