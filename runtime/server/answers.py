"""What the service answers: a verdict under the operator's modes, and what the caller should do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from layerguard.runtime.bundle.manifest import Manifest
from layerguard.runtime.server.config import Mode
from layerguard.runtime.types import Verdict, decision_of

_BELOW_HALF = 0.4999


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Attributes:
        bundle: name of the bundle that was asked.
        mode: of the route; only ``enforce`` blocks.
        verdict: None if the route's mode is ``off``, or if the guard failed and the operator chose
            ``on_error = "allow"``.
        scores: a number in [0, 1] for the whole guard (key "") and each detector, for contracts
            that need one, larger for a smaller p-value. The guard's is at least 0.5 exactly if the
            text is blocked, and a detector's if it is one of those that block it.
        error: why the guard failed; empty if it did not.
        queued_ms: milliseconds that the text waited for a thread.
    """

    bundle: str
    mode: Mode
    verdict: Verdict | None
    scores: Mapping[str, float]
    error: str = ""
    queued_ms: float = 0.0

    @property
    def blocked(self) -> bool:
        """Whether the caller should stop the text."""
        return self.mode == "enforce" and self.flagged

    @property
    def flagged(self) -> bool:
        """Whether the guard flagged the text, blocked or not."""
        return self.verdict is not None and self.verdict.flagged

    @property
    def decision(self) -> str:
        """``block``, ``flag`` (in shadow mode), ``pass`` or ``unchecked``."""
        if self.verdict is None:
            return "unchecked"
        return ("block" if self.blocked else "flag") if self.flagged else "pass"

    @property
    def reason(self) -> str:
        """One sentence that explains the decision."""
        return self.verdict.reason if self.verdict else self.error or "this route is not checked"

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types, with the bundle's name, ``blocked`` and ``mode``."""
        verdict = self.verdict.to_json() if self.verdict else {"reason": self.reason}
        return {"blocked": self.blocked, "mode": self.mode, "bundle": self.bundle, **verdict}


def answer(
    name: str,
    manifest: Manifest,
    verdict: Verdict,
    mode: Mode,
    modes: Mapping[str, Mode],
    queued_ms: float = 0.0,
) -> Answer:
    """The answer with a verdict.

    Args:
        name: the bundle's name.
        manifest: its manifest.
        verdict: as the guard gave it.
        mode: of the route.
        modes: the operator's modes by detector, over the bundle's own.
        queued_ms: as of the ``Answer``.
    """
    verdict = with_modes(verdict, modes)
    blocks = verdict.flagged and mode == "enforce"
    target = manifest.decision.target_fpr if manifest.decision else None
    scores = {"": unit_score(verdict.p_value, target, blocks)}
    for detector, reading in verdict.readings.items():
        decides = reading.flagged and detector not in verdict.shadow
        scores[detector] = unit_score(
            reading.p_value, manifest.detectors[detector].target_fpr, blocks and decides
        )
    return Answer(name, mode, verdict, scores, queued_ms=queued_ms)


def with_modes(verdict: Verdict, modes: Mapping[str, Mode]) -> Verdict:
    """The verdict with the operator's modes of its detectors.

    The p-value of the whole guard is None if another set of detectors now decides.
    """
    if not modes:
        return verdict
    own = {name: "shadow" if name in verdict.shadow else "enforce" for name in verdict.readings}
    now = {name: modes.get(name, mode) for name, mode in own.items()}
    if now == own:
        return verdict
    readings = {name: r for name, r in verdict.readings.items() if now[name] != "off"}
    deciding = [reading for name, reading in readings.items() if now[name] == "enforce"]
    by_detectors, _ = decision_of(deciding, verdict.policy)
    before = [r for name, r in verdict.readings.items() if own[name] == "enforce"]
    otherwise = verdict.flagged and not decision_of(before, verdict.policy)[0]
    otherwise |= verdict.unfamiliar and verdict.on_unfamiliar == "flag"
    otherwise |= bool(verdict.unread) and verdict.on_unread == "flag"
    flags = ", ".join(reading.detector for reading in deciding if reading.flagged)
    return replace(
        verdict,
        readings=readings,
        shadow=tuple(name for name in readings if now[name] == "shadow"),
        flagged=by_detectors or otherwise,
        p_value=None,
        reason=f"of the detectors that the operator lets decide, {flags or 'none'} flags the text; "
        f"by the bundle's own: {verdict.reason}",
    )


def unit_score(p_value: float | None, target: float | None, blocks: bool) -> float:
    """A score in [0, 1], at least 0.5 exactly if it blocks: target / (target + p)."""
    if p_value is None or target is None or target >= 1:
        return float(blocks)
    score = target / (target + p_value)
    return max(score, 0.5) if blocks else min(score, _BELOW_HALF)
