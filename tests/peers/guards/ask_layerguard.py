"""LayerGuard with one detector, SIREN; the job names the bundle."""

from typing import Any

from answering import Ask, answer

from layerguard.runtime import Guard


def load(job: dict[str, Any]) -> Ask:
    """The guard of the bundle."""
    guard = Guard.load(job["bundle"], threads=1)

    def ask(text: str) -> tuple[float, bool]:
        verdict = guard.check(text)
        return verdict.readings["siren"].score, verdict.flagged

    return ask


answer(load)
